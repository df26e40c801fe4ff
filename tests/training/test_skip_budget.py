"""Corrupt samples: counted exactly, never replaced, and more of them than the budget end a training."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from renaissance.api import Item
from renaissance.data.readers.sources import FileImage
from renaissance.errors import DataError, SampleError
from renaissance.evaluation.evaluate import evaluate
from renaissance.evaluation.splits import usable
from renaissance.training.run import run

Recipes = Callable[..., dict[str, Any]]
BAD = frozenset(range(7, 200, 10))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 pictures to train on, of which 20 are truncated, and 5 whole ones to test on."""
    folder = tmp_path_factory.mktemp("pictures")
    lines = []
    for number in range(205):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 100, 255 - number)).save(buffer, "PNG")
        data = buffer.getvalue()
        (folder / f"{number}.png").write_bytes(data[:40] if number in BAD else data)
        part = "test" if number >= 200 else "train"
        lines.append(json.dumps({"image": f"{number}.png", "caption": f"picture {number}", "part": part}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def corrupt(tiny_recipe: Recipes, pictures: Path) -> Recipes:
    data = {
        "kind": "images",
        "path": str(pictures),
        "hold_out": [],
        "train": {"where": {"part": "train"}},
        "splits": {"test": {"where": {"part": "test"}}},
    }

    def recipe(**changes: Any) -> dict[str, Any]:
        whole = {"data": data, "on_bad_sample": "skip", "batch": {"size": 20}, "budget": {"epochs": 2}}
        return tiny_recipe(**{**whole, "tasks": {"itc": {"options": {"width": 8}}}, **changes})

    return recipe


@pytest.mark.parametrize("workers", [0, 2])
def test_each_corrupt_sample_is_counted_once(corrupt: Recipes, workers: int, tmp_path: Path) -> None:
    skipped = run(corrupt(skip_budget=0.1, workers=workers), out=tmp_path / "run").scores["skipped"]
    assert sorted(int(line.partition(", row ")[2].partition(":")[0]) - 1 for line in skipped) == sorted(BAD)


def test_a_training_ends_with_the_first_sample_over_the_budget(corrupt: Recipes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"of 200 samples to train on cannot be used, and skip_budget 0\.001 allows 0"):
        run(corrupt(), out=tmp_path / "run")


def test_a_training_that_the_budget_ended_goes_on_with_a_larger_one(corrupt: Recipes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"skip_budget 0\.05 allows 10"):
        run(corrupt(skip_budget=0.05, checkpoint_every=1), out=tmp_path / "run")
    done = run(corrupt(skip_budget=0.1, checkpoint_every=1), out=tmp_path / "run", resume=True)
    assert len(done.scores["skipped"]) == len(BAD)


def test_a_split_that_is_measured_has_a_budget_of_its_own(corrupt: Recipes, tmp_path: Path) -> None:
    every = {"every": 5, "validation": 50, "tasks": {"retrieval": {}}, "untrained": False}
    with pytest.raises(DataError, match=r"of 50 samples of 'validation' cannot be used, and skip_budget 0\.001"):
        run(corrupt(evaluation=every), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_evaluation_replaces_nothing(corrupt: Recipes, pictures: Path, tmp_path: Path) -> None:
    model = run(corrupt(skip_budget=0.1, budget={"steps": 2}), out=tmp_path / "run").folder / "model"
    from renaissance.container import load

    loaded = load(model)
    with pytest.raises(SampleError, match=r"row 8: "):
        evaluate(loaded, pictures, tasks=["retrieval"])
    found = evaluate(loaded, pictures, tasks=["retrieval"], on_bad_sample="skip")
    assert [(scores.images, len(scores.skipped)) for scores in found] == [(185, 20)]


def test_an_item_to_measure_with_one_bad_image_of_two_is_left_out(pictures: Path) -> None:
    images = [FileImage(str(pictures / f"{number}.png")) for number in (0, 1, 7)]
    good, bad = Item("a", tuple(images[:2]), (), row="row 1"), Item("b", tuple(images[1:]), (), row="row 2")
    kept, (line,) = usable([good, bad], "skip")
    assert kept == [good]
    assert line.startswith("row 2: ")
