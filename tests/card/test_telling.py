"""What a card tells of a model, its data and its parts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from renaissance.card import card_of, check_card, figures, write_card
from renaissance.card.markdown import code, plain, table
from renaissance.card.private import disclosures
from renaissance.card.sources import Sources
from renaissance.card.training import data_table
from renaissance.card.writing import rendered
from renaissance.data.corpora import corpora_of
from renaissance.data.prepared import Writer
from renaissance.registry import Plugin, Registry, key_of
from renaissance.saved_config import SavedSource
from tests.card.cases import FUSION, LABELS, TEXT, TOWERS, VISION, metadata, named_table, saved, with_recipe


def test_a_model_of_drawn_scenes_says_so_first_and_among_its_limits(finished: Path) -> None:
    text = (finished / "README.md").read_text()
    told = "Its domain is drawn scenes, not photographs."
    assert text.count(told) == 2
    assert text.index(told) < text.index("```mermaid")
    assert "drawn-scenes" in metadata(finished)["tags"]


MODELS = {
    "contrast": (f"{TOWERS}, random both, dual(width=16)", {"itc": {}}),
    "labels": (f"{TOWERS}, random both, frozen vision, {FUSION}", {"classification": LABELS}),
    "two pictures": (f"{TOWERS}, random both, {FUSION}", {"pair": LABELS}),
    "boxes": (f"{TOWERS}, random both, {FUSION}", {"referring": {}}),
    "one tower of pictures": (f"{VISION}, one-tower, random encoder", {"itm": {}, "mlm": {}}),
    "one tower of texts": (f"{TEXT} + {VISION}, one-tower, random encoder, random vision", {"itm": {}}),
    "published faults": (f"{TOWERS}, random both, {FUSION}, as-published(no_padding_mask=true)", {"itm": {}}),
}


@pytest.mark.parametrize(("spec", "tasks"), MODELS.values(), ids=MODELS)
def test_a_model_without_a_run_has_a_card_whose_code_runs(
    spec: str,
    tasks: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = saved(tmp_path / "model", spec, tasks)
    text = write_card(folder).read_text()
    check_card(folder)
    for said in ("No recipe came with this model", "Nothing was measured", "Nothing was recorded"):
        assert said in text
    assert ("published code, on purpose" in text) == ("as-published" in spec)
    assert len(re.findall(r"^  head\d", text, re.MULTILINE)) == len(tasks)
    assert "model-index" not in metadata(folder)
    monkeypatch.chdir(folder)
    Image.new("RGB", (32, 32)).save("picture.jpg")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "card", "exec"), {})
    assert capsys.readouterr().out


def test_a_model_with_heads_of_a_plugin_has_a_card(tmp_path: Path) -> None:
    entry = replace(Registry().find("task", "mlm").entry, name="words")
    plugin = Plugin("xyz", "", "renaissance-plugin-xyz", "1.2", entries={key_of(entry): entry}, imported=True)
    registry = Registry([plugin])
    model = saved(tmp_path, f"{TOWERS}, random both, {FUSION}", {"itm": {}, "xyz:words": {}}, registry=registry)
    text = card_of(model, repo="org/name", registry=registry)
    assert "Trained for `itm` and `xyz:words`." in text
    assert re.search(r'head1\(\["task: xyz:words<br>\d+k parameters"', text)
    assert 'from_pretrained("org/name", trust=["xyz"])' in text
    assert "pip install renaissance-vl renaissance-plugin-xyz" in text


def test_the_picture_has_the_sizes_of_the_parts_and_what_is_frozen(finished: Path, sources: Sources) -> None:
    text = (finished / "README.md").read_text()
    drawn = re.search(r"```mermaid\n(.*?)```", text, re.DOTALL)
    assert drawn is not None
    size = figures.short(sum(p.numel() for p in sources.assembly.encoder.vision.parameters()))
    assert f'vision["vision: tiny-vit<br>2 layers, width 32<br>{size} parameters<br>frozen"]:::frozen' in drawn[1]
    boxes = set(re.findall(r"^  (\w+)[\[(]", drawn[1], re.MULTILINE))
    arrows = {name for pair in re.findall(r"^  (\w+) --> (\w+)$", drawn[1], re.MULTILINE) for name in pair}
    assert arrows == boxes == {"images", "texts", "vision", "text", "fusion", "head0", "head1"}


def test_towers_that_were_left_out_are_named_with_their_digest(sources: Sources) -> None:
    source = SavedSource(
        name="vit-base", repository="org/vit", distribution="renaissance-vl 1", revision="a1b2", digest="ab" * 32
    )
    vision = sources.config.resolved["vision"].model_copy(update={"source": source})
    resolved = {**sources.config.resolved, "vision": vision}
    config = sources.config.model_copy(update={"resolved": resolved, "dtype": "float16"})
    card = rendered(replace(sources, config=config), None, {})
    assert "Parameters are stored as float16, and loaded as float32." in card
    assert f"they come from `org/vit` at the commit `a1b2`, and have the SHA-256 `{'ab' * 32}`." in card


def mixed(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "mixture", "parts": [*parts]}


def test_of_data_only_the_last_names_and_the_shares_are_told(sources: Sources) -> None:
    data = mixed(
        {"name": "own", "weight": 1, "data": {"kind": "images", "path": "/home/ada/pictures"}},
        {"name": "hub", "weight": 2, "data": {"kind": "stream", "source": "hf:org/pairs", "revision": "abc"}},
        {"name": "tars", "weight": 1, "data": {"kind": "stream", "source": "C:\\data\\x-*.tar"}},
    )
    mixture = with_recipe(sources, data=data)
    rows = {row["data"]: row for row in named_table(data_table(mixture) + "\n", "what they are")}
    assert [rows[name]["share of the samples"] for name in ("own", "hub", "tars")] == ["25%", "50%", "25%"]
    assert rows["own"]["what they are"] == "images with captions from `pictures`; 10% held out by id as `test`"
    assert rows["hub"]["what they are"] == "the split `train`, streamed from `hf:org/pairs` at `abc`"
    assert rows["tars"]["what they are"] == "the split `train`, streamed from `x-*.tar`"
    card = rendered(mixture, None, {})
    assert list(disclosures(card)) == []
    assert yaml.safe_load(card.split("---\n")[1])["datasets"] == ["org/pairs"]
    assert "drawn scenes" not in card.partition("## Training")[2]


def test_fractions_and_languages_are_those_of_the_manifest(sources: Sources, tmp_path: Path) -> None:
    with Writer(tmp_path / "coco") as writer:
        writer.image("1", b"x", "1.jpg")
        writer.item("train", "1", images=["1"], texts=["a cup"])
        writer.finish({"layout": "coco", "fraction": {"all": 0.25, "images": 0.125}, "languages": {"en": 1, "de": 2}})
    part = {"kind": "prepared", "path": str(tmp_path / "coco")}
    mixture = with_recipe(sources, data=mixed({"name": "big", "data": part}, {"data": part}))
    assert mixture.recipe is not None
    corpora = corpora_of(mixture.recipe.data)
    assert [corpus["name"] for corpus in corpora] == ["big", "part2"]
    card = rendered(replace(mixture, scores={**(sources.scores or {}), "corpora": corpora}), None, {})
    (row, _) = named_table(card, "what they are")
    assert row["what they are"] == (
        "the split `train` of the prepared corpus `coco` (layout `coco`; of what was published it holds "
        "25% of all and 12.5% of images)"
    )
    assert yaml.safe_load(card.split("---\n")[1])["language"] == ["de", "en"]
    drawn = [{**corpus, "drawn": True} for corpus in corpora]
    card = rendered(replace(mixture, scores={**(sources.scores or {}), "corpora": drawn}), None, {})
    assert "Its domain is drawn scenes" in card


def test_overlaps_and_ties_are_told(sources: Sources) -> None:
    assert sources.scores is not None
    shared = {
        "split": "test", "images": 2, "total": 6, "level": "leak", "reason": "a | b", "waived": True, "examples": ["x"],
    }  # fmt: skip
    rows = [{**row, "ties": 12.5} for row in sources.scores["scores"]]
    scores = {**sources.scores, "overlap": {"checked": "image ids", "found": [shared]}, "scores": rows}
    card = rendered(replace(sources, scores=scores), None, {})
    assert "| test | 2 of 6 | leak | a \\| b | yes |" in card
    assert "Images of `test` were trained on" in card
    assert "`test/itm/accuracy` (12.5%)" in card


def test_tables_are_well_formed(finished: Path) -> None:
    text = (finished / "README.md").read_text()
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        heading, rule, *rows = block.splitlines()
        assert rows
        assert re.fullmatch(r"\|(?: ---:? \|)+", rule)
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in (heading, rule, *rows)} == {heading.count("|")}
    assert text.count("```") % 2 == 0


def test_text_from_files_is_no_markup() -> None:
    assert plain("a|b <script> *x* _y_ x_y\n#") == "a\\|b \\<script\\> \\*x\\* \\_y\\_ x_y\\\\n\\#"
    assert code("a`b``c") == "```a`b``c```"
    assert table(("a",), [[plain("|")]]) == "| a |\n| --- |\n| \\| |"
