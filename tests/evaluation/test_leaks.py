"""What was trained on is not measured, unless a waiver says so, and the scores tell of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import renaissance
from renaissance.api import Item
from renaissance.data.doctor import examine
from renaissance.data.load import load_data
from renaissance.data.prepare import prepare
from renaissance.data.prepared import ParquetImage, Prepared
from renaissance.data.world.build import write_world
from renaissance.errors import CapabilityError, DataError, SpecError
from renaissance.evaluation.evaluate import evaluate, evaluate_all
from renaissance.evaluation.leaks import Trained, check_run, trained_images
from renaissance.recipe import Recipe, validate_recipe
from tests.evaluation.prepared_cases import captioned, pairs, write

Recipes = Callable[..., dict[str, Any]]


def told(recipe: dict[str, Any], cache: Path) -> tuple[Recipe, Any]:
    """Return a recipe and its data."""
    checked = validate_recipe(recipe)
    return checked, load_data(checked.data, cache=cache, on_bad_sample="error", validation=0)


def prepared(folder: Path) -> dict[str, Any]:
    return {"kind": "prepared", "path": str(folder)}


def test_a_shared_image_is_refused_before_anything_is_written(
    tiny_recipe: Recipes, tmp_path: Path, cache: Path
) -> None:
    folder = write(tmp_path / "coco", "coco-captions", {"train": captioned(*range(8)), "val": captioned(7, 8, 9)})
    with pytest.raises(DataError, match=r"1 of the 3 images of 'val' were trained on, such as 'coco/p7'.*\[val\]"):
        renaissance.run(tiny_recipe(data=prepared(folder)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_waiver_is_recorded_in_the_scores(tiny_recipe: Recipes, tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "coco", "coco-captions", {"train": captioned(*range(8)), "val": captioned(7, 8, 9)})
    recipe = tiny_recipe(
        data=prepared(folder),
        tasks={"itm": {}},
        budget={"steps": 1},
        schedule={"warmup_steps": 0},
        evaluation={"untrained": False, "waive": ["val"]},
    )
    renaissance.run(recipe, out=tmp_path / "run")
    overlap = json.loads((tmp_path / "run/scores.json").read_text())["overlap"]
    assert overlap["checked"] == "image ids"
    (found,) = overlap["found"]
    assert (found["split"], found["images"], found["total"], found["level"]) == ("val", 1, 3, "leak")
    assert found["waived"]


@pytest.mark.parametrize("waive", [["vla"], ["val"]])
def test_a_waiver_of_what_is_not_shared_is_refused(
    waive: list[str], tiny_recipe: Recipes, tmp_path: Path, cache: Path
) -> None:
    folder = write(tmp_path / "coco", "coco-captions", {"train": captioned(*range(8)), "val": captioned(8, 9)})
    with pytest.raises(SpecError, match=f"'{waive[0]}' shares no image with the training"):
        check_run(*told(tiny_recipe(data=prepared(folder), evaluation={"waive": waive}), cache))


def test_splits_of_scenes_and_of_hold_outs_share_nothing(tiny_recipe: Recipes, cache: Path) -> None:
    assert check_run(*told(tiny_recipe(), cache)) == []


def test_each_part_of_a_mixture_is_compared_with_all_that_is_trained_on(
    tiny_recipe: Recipes, tmp_path: Path, cache: Path
) -> None:
    one = write(tmp_path / "one", "coco-captions", {"train": captioned(1, 2, 3), "val": captioned(4)})
    two = write(tmp_path / "two", "vqav2", {"train": captioned(4, 5, 6), "val": captioned(7)})
    parts = [{"name": place.name, "data": prepared(place)} for place in (one, two)]
    with pytest.raises(DataError, match=r"1 of the 1 images of 'one.val' were trained on"):
        check_run(*told(tiny_recipe(data={"kind": "mixture", "parts": parts}), cache))


@pytest.mark.parametrize("names", [("coco", "questions"), ("questions", "coco")])
def test_an_image_of_two_parts_is_what_the_worse_one_says(
    names: tuple[str, str], tiny_recipe: Recipes, tmp_path: Path, cache: Path
) -> None:
    layouts = {"coco": "coco-captions", "questions": "vqav2"}
    for name, layout in layouts.items():  # only that of COCO is in the field's own set-ups
        write(tmp_path / name, layout, {"train": captioned(1, 2, 3)})
    parts = [{"name": name, "data": prepared(tmp_path / name)} for name in names]
    recipe, data = told(tiny_recipe(data={"kind": "mixture", "parts": parts}), cache)
    trained = trained_images(recipe.data, data.train)
    probe = [Item("3", (ParquetImage("/data/probe/images.parquet", 0, 0, "probe/p3"),), ())]
    shared = trained.shared(probe, ("sugarcrepe", "test"), name="test", waived=False)
    assert shared is not None
    assert (shared.level, shared.reason) == ("leak", "it is evaluated on what it was trained on")


def test_several_splits_are_trained_on_as_one_and_each_counts_as_what_it_is(
    tiny_recipe: Recipes, tmp_path: Path, cache: Path
) -> None:
    splits = {"train": captioned(0, 1, 2), "restval": captioned(3, 4), "test": captioned(5)}
    coco = write(tmp_path / "coco", "coco-captions", splits)
    recipe, data = told(tiny_recipe(data={**prepared(coco), "train": ["train", "restval"]}), cache)
    assert [len(data.train), *data.splits] == [5, "test"]
    trained = trained_images(recipe.data, data.train)

    def level(number: int) -> str:
        probe = [Item("x", (ParquetImage("/data/vqa/images.parquet", 0, 0, f"vqa/p{number}"),), ())]
        shared = trained.shared(probe, ("vqav2", "val"), name="val", waived=False)
        return "nothing" if shared is None else shared.level

    assert [level(number) for number in (1, 3, 5)] == ["leak", "standard overlap", "nothing"]


@pytest.mark.parametrize("train", [[], ["train", "train"]])
def test_splits_to_train_on_are_named_once(train: list[str], tiny_recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"data\.train.*at least one split to train on, and none twice"):
        validate_recipe(tiny_recipe(data={**prepared(tmp_path), "train": train}))


def test_an_image_that_only_a_later_sample_tells_of_is_counted() -> None:
    image = ParquetImage("/data/own/images.parquet", 0, 0, "own/x")
    samples = [Item("a", (image,), ()), Item("b", (image,), (), fields={"coco_id": "7"})]
    trained = Trained({"coco:7": (("coco-captions", "train"),)})
    shared = trained.shared(samples, ("visual-genome", "test"), name="test", waived=False)
    assert shared is not None
    assert (shared.images, shared.total) == (1, 1)


def test_what_the_field_has_too_is_labelled_and_not_refused(
    tiny_model: Callable[..., Any], tiny_recipe: Recipes, tmp_path: Path, cache: Path
) -> None:
    coco = write(tmp_path / "coco", "coco-captions", {"train": captioned(*range(8)), "val": captioned(8)})
    probe = write(tmp_path / "probe", "sugarcrepe", {"test": pairs(6, 7, 8, 9)})
    recipe, data = told(tiny_recipe(data=prepared(coco)), cache)
    trained = trained_images(recipe.data, data.train)
    (found,) = evaluate(tiny_model(("itm",)), probe, trained=trained)
    assert found.shared is not None
    assert (found.shared.images, found.shared.total, found.shared.level) == (2, 4, "standard overlap")
    assert not found.shared.waived


def test_evaluation_refuses_what_was_trained_on(
    tiny_model: Callable[..., Any], tiny_recipe: Recipes, tmp_path: Path, cache: Path
) -> None:
    coco = write(tmp_path / "all/coco", "coco-captions", {"train": captioned(0, 1, 2), "val": captioned(8, 9)})
    recipe, data = told(tiny_recipe(data=prepared(coco)), cache)
    trained, model = trained_images(recipe.data, data.train), tiny_model(("itm",))
    with pytest.raises(DataError, match=r"3 of the 3 images of 'train' were trained on.*--waive train"):
        evaluate(model, coco, splits=["train"], trained=trained)
    (waived,) = evaluate(model, coco, splits=["train"], trained=trained, waive=["train"])
    assert waived.shared is not None
    assert waived.shared.waived
    with pytest.raises(DataError, match=r"images of 'coco/train' were trained on"):
        evaluate_all(model, tmp_path / "all", splits=["train"], trained=trained)


def test_no_data_are_measured_where_some_of_them_were_trained_on(
    tiny_model: Callable[..., Any], tiny_recipe: Recipes, tmp_path: Path, cache: Path
) -> None:
    write(tmp_path / "all/a", "coco-captions", {"test": captioned(8, 9)})
    coco = write(tmp_path / "all/b", "coco-captions", {"train": captioned(0, 1, 2), "test": captioned(2, 3)})
    recipe, data = told(tiny_recipe(data=prepared(coco)), cache)
    measured: list[Any] = []
    with pytest.raises(DataError, match=r"images of 'b/test' were trained on.*--waive b/test"):
        evaluate_all(
            tiny_model(("itm",)),
            tmp_path / "all",
            trained=trained_images(recipe.data, data.train),
            measured=measured.append,
        )
    assert measured == []


def test_two_worlds_call_other_pictures_the_same_and_share_none(
    tiny_recipe: Recipes, tmp_path: Path, cache: Path
) -> None:
    for seed in (1, 2):
        write_world(tmp_path / f"w{seed}", 40, seed, layouts=("coco-captions", "vqav2"), image_size=16)
        for layout in ("coco-captions", "vqav2"):
            prepare(layout, tmp_path / f"w{seed}" / layout, tmp_path / f"{layout}-{seed}")
    recipe, data = told(tiny_recipe(data=prepared(tmp_path / "coco-captions-1")), cache)
    trained = trained_images(recipe.data, data.train)

    def shared(name: str, layout: str) -> Any:
        found = Prepared(tmp_path / name)
        items = [item for split in found.splits for item in found.items(split)]
        return trained.shared(items, (layout, "test"), name="test", waived=False)

    assert shared("vqav2-1", "vqav2").images == len(data.train)
    assert shared("vqav2-2", "vqav2") is None
    report = examine([tmp_path / "coco-captions-1"], against=[tmp_path / "coco-captions-2", tmp_path / "vqav2-2"])
    assert [overlap.by["id"] for overlap in report.overlaps] == [0] * len(report.overlaps)


# --- further data ---------------------------------------------------------------------------------------------------


def test_a_pretraining_run_is_measured_on_probes_beside_its_data(
    tiny_recipe: Recipes, tmp_path: Path, cache: Path
) -> None:
    probe = write(tmp_path / "probe", "sugarcrepe", {"test": pairs(*range(6))})
    colours = [{"images": [n], "texts": [], "label": ("red", "blue")[n % 2]} for n in range(6)]
    other = write(tmp_path / "colours", "image-classification", {"test": colours})
    tasks = {"zero-shot-classification": {"templates": ["a {} thing"]}}
    data = {"crepe": {"path": str(probe)}, "colours": {"path": str(other), "tasks": tasks}}
    evaluation = {"untrained": False, "data": data, "primary": "test/itm/accuracy"}
    done = renaissance.run(tiny_recipe(evaluation=evaluation), out=tmp_path / "run")
    rows = {(row.get("data"), row["split"], row["task"]): row for row in done.scores["scores"]}
    assert set(rows) == {
        (None, "test", "itm"),
        ("crepe", "test", "sugarcrepe"),
        ("colours", "test", "zero-shot-classification"),
    }
    assert set(rows["crepe", "test", "sugarcrepe"]["blind"]) == {"vision", "text"}
    assert set(rows["colours", "test", "zero-shot-classification"]["blind"]) == {"vision"}
    assert list(done.scores["splits"]) == ["test", "crepe/test", "colours/test"]


FAULTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "data that nothing is for": ({"layout": "vqav2"}, CapabilityError, "evaluation.data.other: None of this model"),
    "a split that is not there": ({"splits": ["tset"]}, DataError, "no split 'tset'; choose from: test"),
    "a wrong option": ({"tasks": {"sugarcrepe": {"by": "itx"}}}, SpecError, "sugarcrepe: 'by': input should be"),
    "an image that is trained on": (
        {"images": (1, 2)},
        DataError,
        r"2 of the 2 images of 'other/test'.*\[other/test\]",
    ),
}


@pytest.mark.parametrize("case", list(FAULTS))
def test_further_data_that_cannot_be_measured_are_refused_before_the_training(
    case: str, tiny_recipe: Recipes, tmp_path: Path, cache: Path
) -> None:
    changes, error, message = FAULTS[case]
    given = dict(changes)
    layout, numbers = given.pop("layout", "sugarcrepe"), given.pop("images", (8, 9))
    own = write(tmp_path / "own", layout, {"train": captioned(0, 1, 2, 3), "val": captioned(4, 5)})
    other = write(tmp_path / "other", layout, {"test": pairs(*numbers)})
    recipe = tiny_recipe(data=prepared(own), evaluation={"data": {"other": {"path": str(other), **given}}})
    with pytest.raises(error, match=message):
        renaissance.run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
