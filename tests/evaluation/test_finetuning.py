"""Tasks on items from end to end: prepared data, a recipe, scores, prediction files, and the saved model."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import renaissance
from renaissance.container import load
from renaissance.data.prepared import Writer
from renaissance.errors import CapabilityError, DataError, SpecError
from renaissance.training.checkpoint import newest_checkpoint

COLOURS = ("red", "blue", "lime")
Prepare = Callable[..., Path]


def encoded(colour: str, shade: int) -> bytes:
    picture = Image.new("RGB", (32, 32), colour)
    picture.putpixel((shade % 32, 0), (shade % 256, 0, 0))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Write `count` training items and 12 of each other split: `make(number, colour)` says what an item is."""

    def write(layout: str, make: Callable[[int, str], dict[str, Any]], count: int = 48) -> Path:
        folder = tmp_path / layout
        with Writer(folder) as writer:
            number = 0
            for split, size in (("train", count), ("val", 12)):
                for _ in range(size):
                    colour = COLOURS[number % 3]
                    writer.image(f"p{number}", encoded(colour, number), f"p{number}.png")
                    told = {"images": [f"p{number}"], "texts": ["what colour is it?"], **make(number, colour)}
                    writer.item(split, str(number), **told)
                    number += 1
            writer.finish({"layout": layout})
        return folder

    return write


def recipe(spec: str, task: str, options: dict[str, Any], folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "start": spec,
        "tasks": {task: {"options": options}},
        "data": {"kind": "prepared", "path": str(folder)},
        "batch": {"size": 12},
        "budget": {"steps": 4},
        "schedule": {"warmup_steps": 1},
        "optimiser": {"lr": 0.003},
        "evaluation": {"untrained": False},
        **changes,
    }


def question(number: int, colour: str) -> dict[str, Any]:
    return {"answers": [colour] * 9 + ["pink"], "label": colour, "fields": {"answer_type": "other"}}


def two(number: int, colour: str) -> dict[str, Any]:
    told = str(number % 3 == 0)
    images = [f"p{number}", f"p{number ^ 1}"]  # a split has an even number: no image is in two
    return {"images": images, "texts": ["one is red"], "label": told, "fields": {"identifier": f"dev-{number}-0-0"}}


def hypothesis(number: int, colour: str) -> dict[str, Any]:
    label = ("entailment", "contradiction", "neutral")[number % 3]
    return {"texts": ["it is red"], "label": label}


def boxes(number: int, colour: str) -> dict[str, Any]:
    return {"texts": ["the left one"], "boxes": [(0, 0, 16, 32), (16, 0, 16, 32)], "target": number % 2}


def sentences(number: int, colour: str) -> dict[str, Any]:
    return {"images": [], "texts": [f"it is {colour}", "it is red"], "label": str(int(number % 3 == 0))}


def amount(number: int, colour: str) -> dict[str, Any]:
    return {"fields": {"amount": str(number % 3)}}


def several(number: int, colour: str) -> dict[str, Any]:
    return {"texts": [f"it is {name}" for name in COLOURS], "target": number % 3}


def labelled(number: int, colour: str) -> dict[str, Any]:
    return {"label": colour, "texts": []}


CASES: dict[str, tuple[str, dict[str, Any], Callable[[int, str], dict[str, Any]], set[str], set[str]]] = {
    "vqav2": ("vqa", {"labels": [*COLOURS]}, question, {"VQA score", "VQA score other"}, {"question_id", "answer"}),
    "nlvr2": ("nlvr2", {}, two, {"accuracy", "consistency"}, {"identifier", "prediction"}),
    "snli-ve": ("visual-entailment", {}, hypothesis, {"accuracy"}, {"id", "label"}),
    "refcoco": ("referring", {}, boxes, {"gt-choice accuracy"}, {"id", "box", "boxes"}),
    "glue": ("text-classification", {"subset": "mrpc"}, sentences, {"accuracy", "F1"}, {"index", "prediction"}),
    "cifar-10": (
        "image-classification",
        {"labels": [*COLOURS]},
        labelled,
        {"acc@1", "mean per-class recall"},
        {"id", "label"},
    ),
    "own choice": ("choice", {}, several, {"accuracy"}, {"id", "choice"}),
    "own numbers": (
        "regression",
        {"field": "amount"},
        amount,
        {"Pearson correlation", "Spearman correlation", "R squared"},
        {"id", "value"},
    ),
}


@pytest.mark.parametrize("layout", list(CASES))
def test_a_task_trains_and_is_measured_the_same_when_it_is_loaded_again(
    layout: str, prepare: Prepare, tiny_spec: Callable[..., str], tmp_path: Path, cache: Path
) -> None:
    task, options, make, names, columns = CASES[layout]
    folder = prepare(layout, make)
    run = renaissance.run(recipe(tiny_spec(), task, options, folder), out=tmp_path / "run")
    rows = run.scores["scores"]
    assert {row["name"] for row in rows} == names
    assert {row["split"] for row in rows} == {"val"}
    loaded = renaissance.from_pretrained(tmp_path / "run")
    (found,) = renaissance.evaluate(loaded, folder, splits=["val"])
    again = {row["name"]: row["value"] for row in found.rows()}
    assert again == {row["name"]: pytest.approx(row["value"], abs=1e-4) for row in rows}
    assert found.items == 12
    predictions = found.submissions[task]
    assert len(predictions) == 12
    assert set(predictions[0]) == columns


def test_labels_reach_the_pictures_that_they_are_of(
    prepare: Prepare, tiny_spec: Callable[..., str], tmp_path: Path, cache: Path
) -> None:
    folder = prepare("own", lambda number, colour: {"label": None, "fields": {"kind": colour}}, count=96)
    options = {"labels": [*COLOURS], "field": "kind"}
    told = recipe(tiny_spec(), "classification", options, folder, budget={"steps": 120})
    run = renaissance.run(told, out=tmp_path / "run")
    (row,) = run.scores["scores"]
    assert row["value"] > 90
    model = renaissance.from_pretrained(tmp_path / "run")
    (said,) = model.predict("classification", images=[Image.new("RGB", (32, 32), "blue")], texts=["what colour is it?"])
    assert said.label == "blue"
    assert said.probability == max(said.probabilities.values())
    assert sum(said.probabilities.values()) == pytest.approx(1)


def test_a_probe_measures_a_model_that_never_saw_its_items(
    prepare: Prepare, tiny_model: Callable[..., Any], cache: Path
) -> None:
    def pair(number: int, colour: str) -> dict[str, Any]:
        subset = ("add_att", "swap_obj")[number % 2]
        return {"texts": [f"it is {colour}", "it is black"], "target": 0, "fields": {"subset": subset}}

    folder = prepare("sugarcrepe", pair)
    (found,) = renaissance.evaluate(tiny_model(("itm",)), folder, splits=["val"])
    assert {row["name"] for row in found.rows()} == {"add_att", "swap_obj"}
    with pytest.raises(CapabilityError, match="needs a model that was trained for"):
        renaissance.evaluate(tiny_model(("mlm",)), folder, tasks=["sugarcrepe"])


def test_classes_are_told_without_training(prepare: Prepare, tiny_model: Callable[..., Any], cache: Path) -> None:
    folder = prepare("cifar-10", labelled)
    (found,) = renaissance.evaluate(tiny_model({"itc": {}}), folder, splits=["val"])
    names = {(row["task"], row["name"]) for row in found.rows()}
    assert names == {("zero-shot-classification", name) for name in ("acc@1", "mean per-class recall")}


def test_a_label_outside_of_the_set_is_refused(
    prepare: Prepare, tiny_spec: Callable[..., str], tmp_path: Path, cache: Path
) -> None:
    folder = prepare("snli-ve", lambda number, colour: {"label": "maybe"})
    with pytest.raises(DataError, match=r"has the label 'maybe', and 'visual-entailment' knows: contradiction"):
        renaissance.run(recipe(tiny_spec(), "visual-entailment", {}, folder), out=tmp_path / "run")


def test_captions_and_labels_do_not_train_together(prepare: Prepare, tiny_spec: Callable[..., str]) -> None:
    told = recipe(tiny_spec(), "nlvr2", {}, prepare("nlvr2", two), tasks={"nlvr2": {}, "itm": {}})
    with pytest.raises(SpecError, match="in recipes of their own"):
        renaissance.run(told)


# --- labels that are taken from the data ------------------------------------------------------------------------------


def trained_labels(folder: Path, task: str) -> tuple[str, ...]:
    options: Any = load(folder / "model").plan.tasks[task].options
    labels: tuple[str, ...] = options.labels
    return labels


def spoken(number: int, colour: str) -> dict[str, Any]:
    """Three colours, each given 16 times, and an answer that is given once."""
    told = "Once!" if number == 47 else colour.capitalize() + "."
    return {**question(number, colour), "label": told, "fields": {"answer_type": "other"}}


@pytest.mark.parametrize(
    ("task", "options", "make", "labels"),
    [
        ("vqa", {"labels": None}, spoken, ("blue", "red", "lime")),
        ("vqa", {"labels": None, "minimum": 1}, spoken, ("blue", "red", "lime", "once")),
        ("classification", {"labels": None}, question, ("blue", "lime", "red")),
        ("classification", {"labels": None, "field": "amount"}, amount, ("0", "1", "2")),
        ("image-classification", {"labels": None}, labelled, ("blue", "lime", "red")),
        ("text-classification", {"labels": None}, sentences, ("0", "1")),
    ],
)
def test_open_labels_are_those_of_the_training_items_and_stay_with_the_model(
    task: str,
    options: dict[str, Any],
    make: Callable[[int, str], dict[str, Any]],
    labels: tuple[str, ...],
    prepare: Prepare,
    tiny_spec: Callable[..., str],
    tmp_path: Path,
) -> None:
    folder = prepare("open", make)
    done = renaissance.run(recipe(tiny_spec(), task, options, folder), out=tmp_path / "run")
    assert trained_labels(done.folder, task) == labels
    model = renaissance.from_pretrained(done.folder)
    assert [score.split for score in renaissance.evaluate(model, folder, tasks=[task])] == ["val"]
    assert [score.split for score in renaissance.evaluate(model, folder, tasks=[task], splits=["train"])] == ["train"]


def test_a_saved_head_keeps_its_labels_where_the_recipe_leaves_them_open(
    prepare: Prepare, tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    first = recipe(tiny_spec(), "vqa", {"labels": ["pink", *COLOURS]}, prepare("data-1", question))
    renaissance.run(first, out=tmp_path / "first")
    second = recipe(tiny_spec(), "vqa", {"labels": None}, prepare("data-2", question))
    second["start"] = {"model": str(tmp_path / "first")}
    renaissance.run(second, out=tmp_path / "second")
    assert trained_labels(tmp_path / "second", "vqa") == ("pink", *COLOURS)


def test_a_head_that_surgery_adds_takes_open_labels_from_the_data(
    prepare: Prepare, tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    renaissance.run(recipe(tiny_spec(), "nlvr2", {}, prepare("data-1", two)), out=tmp_path / "first")
    second = recipe(tiny_spec(), "vqa", {"labels": None}, prepare("data-2", question))
    surgery = {"drop_tasks": ["nlvr2"], "add_tasks": ["vqa"]}
    second["start"] = {"model": str(tmp_path / "first"), "surgery": surgery}
    renaissance.run(second, out=tmp_path / "second")
    assert trained_labels(tmp_path / "second", "vqa") == ("blue", "lime", "red")


def test_a_run_with_open_labels_goes_on_where_it_ended(
    prepare: Prepare, tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    open_labels = recipe(tiny_spec(), "vqa", {"labels": None}, prepare("open", question), checkpoint_every=2)
    renaissance.run(open_labels, out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "model")
    newest, _ = newest_checkpoint(tmp_path / "again" / "checkpoints")
    assert newest is not None
    shutil.rmtree(newest)
    renaissance.run(open_labels, out=tmp_path / "again", resume=True)
    assert trained_labels(tmp_path / "again", "vqa") == trained_labels(tmp_path / "whole", "vqa")
    files = [tmp_path / name / "model" / "model.safetensors" for name in ("whole", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_training_items_with_fewer_than_two_labels_are_refused(
    prepare: Prepare, tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    folder = prepare("open", question)
    with pytest.raises(DataError, match=r"they have no label for it\. Give the option 'labels', .* lower 'minimum'"):
        renaissance.run(recipe(tiny_spec(), "vqa", {"labels": None, "minimum": 99}, folder), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_open_labels_are_refused_where_there_are_no_data(tiny_spec: Callable[..., str]) -> None:
    for task in ("vqa", "classification", "pair", "image-classification", "text-classification"):
        with pytest.raises(SpecError, match=f"'{task}': its option 'labels' is null, and only a run takes them"):
            renaissance.build(tiny_spec(), tasks={task: {"labels": None}})
