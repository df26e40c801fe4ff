"""A card that is stale or was edited is told from one that is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from renaissance.card import YOURS, card_of, check_card, write_card
from renaissance.container import load
from renaissance.errors import CardError, ModelFileError, PluginError
from renaissance.manifest import file_facts, read_manifest, verify_files
from renaissance.registry import Registry
from tests.card.cases import TOWERS, edit, edit_json, metadata, saved


def test_a_card_that_was_just_written_passes_and_is_the_same_again(finished: Path) -> None:
    check_card(finished)
    assert card_of(finished) == card_of(finished) == (finished / "README.md").read_text()


@pytest.mark.parametrize(
    "line", [r"      value: (\d)", r"\*\*R@1\*\* \| (\d)", r"\| total \| (\d)", r"- (\d) updates", r"width (\d)"]
)
def test_one_digit_that_is_changed_fails_and_the_line_is_named(line: str, model: Path) -> None:
    text = (model / "README.md").read_text()
    found = re.search(line, text)
    assert found is not None
    digit = str((int(found[1]) + 1) % 10)
    (model / "README.md").write_text(text[: found.start(1)] + digit + text[found.end(1) :])
    number = text[: found.start(1)].count("\n") + 1
    with pytest.raises(CardError, match=rf"^README.md, line {number}, says '.+' where the files beside it say '.+'\."):
        check_card(model)


def test_scores_that_are_newer_than_the_card_fail(model: Path) -> None:
    edit_json(model / "scores.json", lambda scores: scores["scores"][-20].update(value=1.25))
    edit_json(model / "ledger.json", lambda ledger: ledger.update(updates=5))
    with pytest.raises(CardError, match="Write the card again"):
        check_card(model)
    write_card(model)
    check_card(model)


def test_words_in_the_made_part_fail_and_those_below_the_mark_stay(model: Path) -> None:
    edit(model / "README.md", "## Limits\n", "## Limits\n\nNone at all!\n")
    with pytest.raises(CardError, match=f"with words of your own below '{YOURS}' alone"):
        check_card(model)
    write_card(model)
    with (model / "README.md").open("a") as card:
        card.write("\n## My notes\n\nIt took me 3 days.\n")
    check_card(model)
    edit_json(model / "ledger.json", lambda ledger: ledger.update(updates=5))
    text = write_card(model).read_text()
    assert text.endswith(f"{YOURS}\n\n## My notes\n\nIt took me 3 days.\n")
    assert "5 updates" in text


def test_a_model_with_the_least_card_has_none_yet(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", f"{TOWERS}, random both, dual(width=16)", {"itc": {}})
    with pytest.raises(CardError, match=r"has no card yet\. Write it: renaissance card"):
        check_card(folder)
    write_card(folder)
    check_card(folder)


def test_a_card_by_hand_is_not_lost(model: Path) -> None:
    (model / "README.md").write_text("# My model\n\nThe best.\n")
    with pytest.raises(CardError, match="was written by hand, and would be lost"):
        write_card(model)
    (model / "README.md").write_text(f"---\nlicense: mit\n---\n\n# My model\n\n{YOURS}\n\nThe best.\n")
    assert write_card(model).read_text().endswith(f"{YOURS}\n\nThe best.\n")
    assert metadata(model)["license"] == "mit"


def test_writing_notes_the_card_in_the_manifest_and_leaves_all_else(model: Path) -> None:
    before = read_manifest(model).files
    write_card(model, licence="apache-2.0")
    after = read_manifest(model).files
    assert after["README.md"] == file_facts(model / "README.md")
    assert {name for name in after if after[name] != before[name]} == {"README.md"}
    verify_files(model, read_manifest(model), sha256=True)
    load(model, registry=Registry())


def test_a_missing_plugin_is_named_with_its_pip_line(model: Path) -> None:
    edit_json(model / "config.json", lambda config: config["plugins"].update(xyz="renaissance-plugin-xyz 0.3.1"))
    with pytest.raises(PluginError, match=r"plugin 'xyz'.*pip install renaissance-plugin-xyz==0\.3\.1$"):
        card_of(model)


def test_what_holds_no_model_has_no_card(tmp_path: Path) -> None:
    for call in (card_of, check_card, write_card):
        with pytest.raises(ModelFileError, match="holds no saved model"):
            call(tmp_path)


def test_files_that_no_run_wrote_are_told_of(model: Path) -> None:
    edit_json(model / "scores.json", lambda scores: scores["scores"][-20].pop("chance"))
    with pytest.raises(ModelFileError, match="is not what a run writes"):
        card_of(model)
    edit_json(model / "scores.json", lambda scores: scores.update(format="one"))
    with pytest.raises(ModelFileError, match=r"says no format that is known \(1\)\. Copy it from the run again"):
        card_of(model)
    edit_json(model / "scores.json", lambda scores: scores.update(format=2))
    with pytest.raises(ModelFileError, match=r"is of format 2, and this renaissance knows up to 1\. Try: pip install"):
        card_of(model)
