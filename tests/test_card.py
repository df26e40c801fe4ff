"""Model cards: every number is that of a file, what a person said stays, and nothing private gets out."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, constants
from PIL import Image

from renaissance.assemble import assemble
from renaissance.card import YOURS, card_of, check_card, figures, shorten_paths, write_card
from renaissance.card.markdown import code, plain, table
from renaissance.card.metadata import bases_of, check_metadata, pipeline_of
from renaissance.card.private import disclosures
from renaissance.card.sources import Sources, read_sources
from renaissance.card.training import data_table
from renaissance.card.writing import rendered
from renaissance.cli import main
from renaissance.container import load, save
from renaissance.data.corpora import corpora_of
from renaissance.data.prepared import Writer
from renaissance.errors import CardError, HubError, ModelFileError, RenaissanceError
from renaissance.left_out import SavedSource
from renaissance.manifest import file_facts, read_manifest, verify_files, write_manifest
from renaissance.recipe import load_recipe, validate_recipe
from renaissance.registry import Registry
from renaissance.resolve import resolve
from renaissance.training.run import run
from tests.hub_server import HubServer, card_fault

SIZES = "layers=1, width=32, heads=2, mlp_width=32"
VISION = f"tiny-vit({SIZES}, image_size=32, patch_size=8)"
TEXT = f"tiny-bert({SIZES})"
TOWERS = f"{VISION} + {TEXT}"
FUSION = "lxmert(layers=1, width=32, heads=2)"
LABELS = {"labels": ["yes", "no"]}
WRITERS: tuple[Callable[[Any], str], ...] = (
    figures.percent,
    figures.count,
    figures.short,
    figures.memory,
    figures.seconds,
    figures.setting,
)
TOKEN = "hf_" + "aB3" * 10
NUMBER = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


@pytest.fixture(scope="module")
def finished(tiny_spec: Callable[..., str], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a run with stages, an adapter, a primary score, a blind twin and an untrained one."""
    recipe = {
        "name": "tiny",
        "start": tiny_spec("frozen vision, lora(rank=2) text"),
        "tasks": {"itm": {}, "itc": {"weight": 0.5, "options": {"width": 16}}},
        "data": {"kind": "world", "train": 24, "test": 6, "captions": 2, "image_size": 32},
        "batch": {"size": 4},
        "budget": {"steps": 4},
        "schedule": {"warmup_steps": 1},
        "freezing": {"stages": [{"at": 2, "thaw": ["vision[-1:]"]}]},
        "evaluation": {"tasks": {"retrieval": {}}, "blind": "vision", "primary": "test/retrieval/R@1"},
    }
    finished = run(recipe, out=tmp_path_factory.mktemp("card") / "run")
    shutil.copy(finished.folder / "recipe.yaml", finished.model_folder)
    write_manifest(finished.model_folder)
    write_card(finished.folder)
    return finished.model_folder


@pytest.fixture(scope="module")
def sources(finished: Path) -> Sources:
    return read_sources(finished)


@pytest.fixture
def model(finished: Path, tmp_path: Path) -> Path:
    """A copy of the model, to be changed."""
    shutil.copytree(finished, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server


def with_recipe(sources: Sources, **changes: Any) -> Sources:
    """Return the sources with keys of the recipe changed, and its evaluation as by default."""
    assert sources.recipe is not None
    return replace(sources, recipe=validate_recipe({**sources.recipe.dump(), "evaluation": {}, **changes}))


def saved(folder: Path, spec: str, tasks: Mapping[str, Mapping[str, Any]]) -> Path:
    """Save an untrained model that has no scores, no ledger and no recipe."""
    save(assemble(resolve(spec, tasks, registry=Registry())), folder)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def metadata(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    return read


def tables(text: str) -> list[list[list[str]]]:
    """Return the tables of a card: rows of cells, the line below the heading left out."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    cells = [[[cell.strip() for cell in row.strip("|").split("|")] for row in block.splitlines()] for block in blocks]
    return [[block[0], *block[2:]] for block in cells]


def named_table(text: str, column: str) -> list[dict[str, str]]:
    """Return the rows of the table with such a column."""
    heading, *rows = next(block for block in tables(text) if column in block[0])
    return [dict(zip(heading, row, strict=True)) for row in rows]


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_each_score_in_the_table_is_that_of_scores_json(finished: Path) -> None:
    rows = json.loads((finished / "scores.json").read_text())["scores"]
    by_key = {(row["model"], row["split"], row["task"], row["name"]): row for row in rows}
    shown = named_table((finished / "README.md").read_text(), "value [95%]")
    assert len(shown) == sum(row["model"] == "trained" for row in rows) > 10
    for cells in shown:
        split, task, score = (cells[name].strip("*") for name in ("split", "task", "score"))
        row, untrained = by_key["trained", split, task, score], by_key["untrained", split, task, score]
        assert cells["value [95%]"] == f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
        assert (cells["n"], cells["chance"]) == (str(row["n"]), f"{row['chance']:.1f}")
        blind = [f"{row['blind'][name]:.1f}" for name in ("vision", "text", "twin")]
        assert [cells[name] for name in ("other images", "other texts", "blind twin")] == blind
        assert cells["untrained"] == f"{untrained['value']:.1f}"


def test_the_primary_score_alone_is_bold(finished: Path) -> None:
    rows = named_table((finished / "README.md").read_text(), "value [95%]")
    assert [row["score"] for row in rows if "**" in row["score"]] == ["**R@1**"]


def test_each_figure_of_the_ledger_is_that_of_ledger_json(finished: Path) -> None:
    ledger, text = json.loads((finished / "ledger.json").read_text()), (finished / "README.md").read_text()
    for row in named_table(text, "FLOPs"):
        assert row["forward"] == figures.short(ledger["flops"][row["FLOPs"]]["forward"])
        assert row["backward"] == figures.short(ledger["flops"][row["FLOPs"]]["backward"])
    for row in named_table(text, "saved"):
        assert row["FLOPs"] == figures.short(ledger["compared"][row["training"]])
    for row in named_table(text, "phase"):
        assert row["seconds"] == figures.seconds(ledger["wall_seconds"][row["phase"]])


def leaves(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], float]]:
    """Yield the path and the value of each number."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from leaves(value, (*path, key))
    if isinstance(data, int | float) and not isinstance(data, bool):
        yield path, data


def changed(data: Any, path: tuple[Any, ...], value: float) -> Any:
    copy = json.loads(json.dumps(data))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def test_every_score_and_every_figure_of_the_ledger_moves_the_card(sources: Sources) -> None:
    before = rendered(sources, None, {})
    assert sources.scores is not None
    trained = [index for index, row in enumerate(sources.scores["scores"]) if row["model"] == "trained"]
    shown = ("value", "low", "high", "n", "chance", "vision", "text", "twin")
    for path, value in leaves(sources.scores):
        if path[0] == "scores" and path[1] in (trained[0], trained[-1]) and path[-1] in shown:
            other = replace(sources, scores=changed(sources.scores, path, 2 * value + 7))
            assert rendered(other, None, {}) != before, path
    sections = ("updates", "samples", "flops", "compared", "wall_seconds", "cpu_seconds", "peak_memory_bytes")
    for path, value in leaves(sources.ledger):
        if path[0] in sections and path[-1] != "training":
            other = replace(sources, ledger=changed(sources.ledger, path, 2 * value + 7))
            assert rendered(other, None, {}) != before, path


def test_a_number_outside_of_code_comes_from_a_file_or_stands_in_the_template(finished: Path, sources: Sources) -> None:
    known = {"95", "2", "3"}  # of "95%", and of names
    data = [json.loads((finished / name).read_text()) for name in ("scores.json", "ledger.json", "config.json")]
    data += [yaml.safe_load((finished / "recipe.yaml").read_text())]
    sizes = [module for _, module in sources.assembly.named_modules()]
    values = [value for source in data for _, value in leaves(source)]
    values += [sum(p.numel() for p in module.parameters()) for module in sizes]
    values += [sum(p.numel() for p in module.parameters() if p.requires_grad) for module in sizes]
    for value in values:
        for write in WRITERS:
            known.update(NUMBER.findall(write(value)))
    text = (finished / "README.md").read_text().partition("\n# ")[2].partition("## Citation")[0]
    prose = re.sub(r"```.*?```|`[^`\n]*`|R@\d+|^- machine.*$|\d[\d.]*%", "", text, flags=re.DOTALL | re.MULTILINE)
    freezing = prose.index("### What was frozen"), prose.index("## Scores")  # counts of stages have a test of their own
    prose = prose[: freezing[0]] + prose[freezing[1] :]
    unknown = [number for number in NUMBER.findall(prose) if number not in known]
    assert not unknown


def test_the_stages_say_what_was_frozen_and_how_much_was_trained(finished: Path, sources: Sources) -> None:
    rows = named_table((finished / "README.md").read_text(), "frozen parts")
    encoder = sources.assembly.encoder
    trainable = sum(p.numel() for p in sources.assembly.parameters() if p.requires_grad)
    last = sum(p.numel() for p in (*encoder.vision.blocks[-1].parameters(), *encoder.vision.final[0].parameters()))
    assert [row["from"] for row in rows] == ["the start", "update 2"]
    assert rows[0]["frozen parts"].startswith("vision, ")
    assert [row["trained parameters"] for row in rows] == [figures.short(trainable), figures.short(trainable + last)]


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (figures.percent, 58.3333, "58.3"),
        (figures.short, 27_123_456, "27.1M"),
        (figures.short, 999, "999"),
        (figures.short, 363_400_704, "363M"),
        (figures.short, 1_000, "1.00k"),
        (figures.memory, 909_152_256, "867 MiB"),
        (figures.memory, 12, "12 bytes"),
        (figures.seconds, 0.058, "0.06"),
        (figures.seconds, 1234.5, "1,234"),
        (figures.share, 0.25, "25%"),
        (figures.share, 0.0001, "0.01%"),
        (figures.setting, 0.002, "0.002"),
        (figures.count, 1234, "1,234"),
    ],
)
def test_a_number_is_written_in_one_way(write: Callable[[Any], str], value: float, text: str) -> None:
    assert write(value) == text


# --- the check --------------------------------------------------------------------------------------------------------


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


def test_what_holds_no_model_has_no_card(tmp_path: Path) -> None:
    for call in (card_of, check_card, write_card):
        with pytest.raises(ModelFileError, match="holds no saved model"):
            call(tmp_path)


def test_files_that_no_run_wrote_are_told_of(model: Path) -> None:
    edit_json(model / "scores.json", lambda scores: scores["scores"][-20].pop("chance"))
    with pytest.raises(ModelFileError, match="is not what a run writes"):
        card_of(model)
    edit_json(model / "scores.json", lambda scores: scores.update(format=2))
    with pytest.raises(ModelFileError, match=r"is of format 2, and this renaissance reads 1\. Try: pip install"):
        card_of(model)


# --- what is private --------------------------------------------------------------------------------------------------

SECRETS = {
    "token of the Hub": TOKEN,
    "AWS": "AKIAIOSFODNN7EXAMPLE",
    "GitHub": "ghp_" + "a1B2" * 9,
    "private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "password in an address": "https://me:hunter2@example.org/data",
    "token in an address": "https://example.org/data.tar?part=1&token=abc123",
    "JSON web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.x",
}
PLACES = ["/home/ada/coco", "see `/mnt/data`", "C:\\Users\\ada\\coco", r"\\server\share\coco", "~/coco", "file:///x"]


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_below_the_mark_is_refused_and_not_repeated(secret: str, model: Path) -> None:
    with (model / "README.md").open("a") as card:
        card.write(f"\nDownload with {secret}\n")
    number = len((model / "README.md").read_text().splitlines())
    for call in (check_card, card_of):
        with pytest.raises(CardError, match=r"^README.md, line \d+, has a.* would be public") as caught:
            call(model)
        assert secret not in str(caught.value)
    with pytest.raises(CardError, match=f"line {number},"):
        check_card(model)


@pytest.mark.parametrize("place", PLACES)
def test_a_local_path_is_refused(place: str, model: Path) -> None:
    with (model / "README.md").open("a") as card:
        card.write(f"\nData: {place}\n")
    with pytest.raises(CardError, match=r"path|local file"):
        check_card(model)


@pytest.mark.parametrize(
    "line",
    [
        "https://huggingface.co/org/name/resolve/main/config.json",
        "and/or, 3/4, <br/>, </details>, hf_hub_download, data/coco, ../coco, ./run",
        "path: data/coco",
        "| a | b |",
        "sha256: 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "ratio: 1:2, s3://bucket/key, C: a letter",
    ],
)
def test_what_is_public_is_not_refused(line: str) -> None:
    assert list(disclosures(line)) == []


def with_data(model: Path, data: Mapping[str, Any]) -> None:
    recipe = {**load_recipe(model / "recipe.yaml").dump(), "data": dict(data), "evaluation": {}}
    (model / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    write_manifest(model)


def test_a_local_path_in_the_recipe_is_refused_and_shortened_on_request(model: Path) -> None:
    with_data(model, {"kind": "prepared", "path": "/home/ada/corpora/coco"})
    assert "the prepared corpus `coco`" in write_card(model).read_text()
    line = (model / "recipe.yaml").read_text().splitlines().index("  path: /home/ada/corpora/coco") + 1
    with pytest.raises(CardError, match=rf"^recipe.yaml, line {line}, has an absolute path.*--shorten-paths"):
        check_card(model)
    assert shorten_paths(model) == ["coco"]
    assert load_recipe(model / "recipe.yaml").dump()["data"]["path"] == "coco"
    verify_files(model, read_manifest(model))
    check_card(model)
    assert shorten_paths(model) == []


def test_the_users_name_in_a_path_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "adalovelace")
    with_data(model, {"kind": "prepared", "path": "scratch/adalovelace/coco"})
    write_card(model)
    with pytest.raises(CardError, match="your user name in a path"):
        check_card(model)
    assert shorten_paths(model) == ["coco"]
    check_card(model)


def test_a_local_path_in_the_scores_is_refused_and_shortened_on_request(model: Path) -> None:
    skipped = ["/home/ada/coco/7.jpg cannot be decoded", "'C:\\data\\8.jpg' is empty"]
    edit_json(model / "scores.json", lambda scores: scores.update(skipped=skipped))
    assert "left out: 2 notes in scores.json" in write_card(model).read_text()
    with pytest.raises(CardError, match=r"^scores.json, line \d+, has an absolute path"):
        check_card(model)
    assert shorten_paths(model) == ["7.jpg cannot be decoded", "'8.jpg' is empty"]
    check_card(model)


def test_a_secret_in_the_recipe_is_refused(model: Path) -> None:
    with_data(model, {"kind": "stream", "source": f"https://example.org/{TOKEN}/x.tar"})
    write_card(model, repo=None)
    with pytest.raises(CardError, match=r"^recipe.yaml, line \d+, has a token of the Hub") as caught:
        check_card(model)
    assert TOKEN not in str(caught.value)


# --- metadata ---------------------------------------------------------------------------------------------------------


def test_the_metadata_round_trips_through_the_client_and_the_hub_takes_it(finished: Path, hub: HubServer) -> None:
    card = ModelCard.load(finished / "README.md")
    assert str(card) == (finished / "README.md").read_text()
    assert card.data.library_name == "renaissance"
    assert card.data.pipeline_tag == "zero-shot-image-classification"
    rows = [row for row in json.loads((finished / "scores.json").read_text())["scores"] if row["model"] == "trained"]
    assert [(one.task_name, one.metric_name, one.metric_value) for one in card.data.eval_results] == [
        (row["task"], row["name"], round(row["value"], 1)) for row in rows
    ]
    assert all(one.verified is False for one in card.data.eval_results)
    card.validate()
    assert len(hub.asked("POST /api/validate-yaml")) == 1


RESULT = {"task": {"type": "itm"}, "dataset": {"type": "x", "name": "x"}, "metrics": [{"type": "a", "value": 1.0}]}
REFUSED: dict[str, Any] = {
    "no mapping": ["a", "list"],
    "licence": {"license": "my-own"},
    "licence without a name": {"license": "other"},
    "language": {"language": "English"},
    "base model": {"base_model": ["a folder/b/c"]},
    "relation": {"base_model_relation": "child"},
    "pipeline": {"pipeline_tag": "vision-and-language"},
    "result without a data set": {
        "model-index": [{"name": "x", "results": [{key: RESULT[key] for key in ("task", "metrics")}]}]
    },
    "metric without a value": {"model-index": [{"name": "x", "results": [{**RESULT, "metrics": [{"type": "a"}]}]}]},
}


@pytest.mark.parametrize("faulty", REFUSED.values(), ids=REFUSED)
def test_what_the_hub_refuses_is_refused_offline(faulty: Any) -> None:
    assert card_fault(f"---\n{yaml.safe_dump(faulty)}\n---\n")
    with pytest.raises(CardError, match=r"^The metadata of the card: "):
        check_metadata(faulty)


def test_what_a_person_says_stays_and_what_the_hub_does_not_know_is_refused(model: Path) -> None:
    write_card(model, repo="org/tiny", licence="cc-by-4.0", languages=["en", "de"])
    write_card(model)
    text = (model / "README.md").read_text()
    assert metadata(model)["license"] == "cc-by-4.0"
    assert metadata(model)["language"] == ["en", "de"]
    assert metadata(model)["model-index"][0]["name"] == "org/tiny"
    assert "\n# org/tiny\n" in text
    assert 'from_pretrained("org/tiny")' in text
    check_card(model)
    with pytest.raises(CardError, match="license is 'mine', which the Hub does not know"):
        write_card(model, licence="mine")
    with pytest.raises(HubError, match="'tiny' is no repository"):
        write_card(model, repo="tiny")
    assert (model / "README.md").read_text() == text


def test_metadata_that_cannot_be_read_are_told_of(model: Path) -> None:
    edit(model / "README.md", "library_name: renaissance", "library_name: [renaissance")
    with pytest.raises(CardError, match="The metadata of the card cannot be read"):
        check_card(model)


@pytest.mark.parametrize(
    ("spec", "bases", "relation"),
    [
        ("vit-base + bert-base", ["google/vit-base-patch16-224-in21k", "google-bert/bert-base-uncased"], "finetune"),
        ("vit-base + tiny-bert, random text", ["google/vit-base-patch16-224-in21k"], "finetune"),
        ("vit-base + bert-base, lora text, random vision", ["google-bert/bert-base-uncased"], "adapter"),
        ("timm:resnet18.a1_in1k + bert-base, random text", ["timm/resnet18.a1_in1k"], "finetune"),
        ("timm:resnet18 + bert-base, random text", [], None),
        ("bert-base, one-tower", ["google-bert/bert-base-uncased"], "finetune"),
        ("vit-base + bert-base, random both", [], None),
    ],
)
def test_base_models_are_those_that_weights_come_from(
    spec: str, bases: list[str], relation: str | None, sources: Sources
) -> None:
    plan = resolve(spec, ("itm",), registry=Registry())
    assert bases_of(replace(sources, plan=plan, recipe=None)) == (bases, relation)


@pytest.mark.parametrize(
    ("model", "bases"),
    [("org/name@main", ["org/name"]), ("runs/demo", []), ("renaissance/bridge", ["renaissance/bridge"])],
)
def test_a_saved_start_is_a_base_model_where_it_was_surely_of_the_hub(
    model: str, bases: list[str], sources: Sources
) -> None:
    started = with_recipe(sources, start={"model": model})
    assert bases_of(started) == (bases, "adapter" if bases else None)
    assert f"It started from the saved model `{model}`" in rendered(started, None, {})


@pytest.mark.parametrize(
    ("tasks", "tag"),
    [
        ({"itm": {}}, "feature-extraction"),
        ({"itm": {}, "itc": {}}, "zero-shot-image-classification"),
        ({"vqa": LABELS, "itc": {}}, "visual-question-answering"),
        ({"image-classification": LABELS}, "image-classification"),
    ],
)
def test_the_pipeline_is_one_that_the_hub_knows(tasks: dict[str, Any], tag: str, sources: Sources) -> None:
    plan = resolve(f"{TOWERS}, random both, {FUSION}", tasks, registry=Registry())
    assert pipeline_of(replace(sources, plan=plan)) == tag


# --- what it says -----------------------------------------------------------------------------------------------------


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


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_writes_and_checks(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(model)]) == 0
    assert capsys.readouterr().out == (model / "README.md").read_text()
    assert main(["card", str(model), "--write", "--license", "mit"]) == 0
    assert main(["card", str(model), "--check"]) == 0
    edit(model / "README.md", "4 updates", "400 updates")
    capsys.readouterr()
    assert main(["card", str(model), "--check"]) == CardError.exit_code == 17
    assert "says '400' where the files beside it say '4'" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--check", "--write"], ["--check", "--license", "mit"], ["--shorten-paths"]])
def test_options_that_contradict_each_other_are_refused(options: list[str], model: Path) -> None:
    assert main(["card", str(model), *options]) == 2


def test_the_command_shortens_paths_on_request(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_data(model, {"kind": "images", "path": "/home/ada/pictures"})
    assert main(["card", str(model), "--write", "--shorten-paths"]) == 0
    assert "A path became 'pictures'." in capsys.readouterr().err
    assert main(["card", str(model), "--check"]) == 0


def test_errors_of_cards_are_errors_of_renaissance() -> None:
    assert issubclass(CardError, RenaissanceError)
