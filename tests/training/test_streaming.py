"""Runs on streams and mixtures, end to end at tiny size: going on, loader processes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renaissance.errors import CheckpointError, SpecError
from renaissance.recipe import as_recipe, validate_recipe
from renaissance.training.run import run
from tests.data.shards import write_parquet, write_tars
from tests.training.test_run import interrupted, same, weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

WORLD = {"kind": "world", "train": 12, "test": 6, "captions": 2, "image_size": 32}


@pytest.fixture(scope="module")
def recipes(tiny_spec: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Twelve updates with dropout and augmentation over two epochs and a checkpoint every four: by kind of data."""
    folder = tmp_path_factory.mktemp("shards")
    streams = {}
    for kind, write in (("tars", write_tars), ("parquet", write_parquet)):
        write(folder / kind)
        write(folder / kind, (5,), split="test", first=60)
        streams[kind] = {
            "kind": "stream",
            "source": str(folder / kind),
            "shuffle_buffer": 8,
            "splits": {"test": {}},
        }
    mixture = {"kind": "mixture", "parts": [{"data": WORLD}, {"data": streams["tars"], "weight": 2.0}]}
    shared = {
        "name": "tiny",
        "start": tiny_spec(dropout=0.1),
        "tasks": {"mlm": {}, "itm": {}, "itc": {"options": {"width": 16}}},
        "augmentation": {"crop": [0.5, 1.0]},
        "batch": {"size": 4},
        "budget": {"steps": 12},
        "schedule": {"warmup_steps": 2},
        "optimiser": {"lr": 0.002},
        "evaluation": {"tasks": {"retrieval": {}}, "untrained": False},
        "checkpoint_every": 4,
    }
    return {name: {**shared, "data": data} for name, data in {**streams, "mixture": mixture}.items()}


@pytest.fixture(scope="module")
def whole(
    recipes: dict[str, dict[str, Any]], cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder of an uninterrupted run on data of a kind."""
    folder = tmp_path_factory.mktemp("whole")

    def done(kind: str) -> Path:
        if not (folder / kind).exists():
            run(recipes[kind], out=folder / kind)
        return folder / kind

    return done


@pytest.mark.parametrize(("kind", "workers"), [("tars", 0), ("tars", 1), ("parquet", 1), ("mixture", 1)])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    kind: str, workers: int, recipes: dict[str, dict[str, Any]], whole: Callable[[str], Path], tmp_path: Path
) -> None:
    recipe = {**recipes[kind], "workers": workers}
    interrupted(recipe, tmp_path / "run", 10)
    resumed = run(recipe, out=tmp_path / "run", resume=True)
    assert same(weights(whole(kind)), weights(tmp_path / "run"))
    assert resumed.scores["scores"] == json.loads((whole(kind) / "scores.json").read_text())["scores"]


def test_a_mixture_is_measured_on_the_splits_of_its_parts(whole: Callable[[str], Path]) -> None:
    scores = json.loads((whole("mixture") / "scores.json").read_text())
    assert set(scores["splits"]) == {"part1.test", "part2.test"}


def test_a_run_does_not_go_on_with_other_shards(
    recipes: dict[str, dict[str, Any]], tmp_path: Path, cache: Path
) -> None:
    folder = write_tars(tmp_path / "moving")
    recipe = {**recipes["tars"], "data": {"kind": "stream", "source": str(folder)}}
    interrupted(recipe, tmp_path / "run", 6)
    write_tars(folder, (7, 1, 9, 5))
    with pytest.raises(CheckpointError):
        run(recipe, out=tmp_path / "run", resume=True)


def test_epochs_are_counted_of_a_stream(recipes: dict[str, dict[str, Any]], tmp_path: Path, cache: Path) -> None:
    done = run({**recipes["tars"], "budget": {"epochs": 1}, "schedule": {"warmup_steps": 1}}, out=tmp_path / "run")
    assert done.scores["training"] == {"samples": 23, "updates": 5, "batch_size": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"store": True}, "a store is made of samples that are all known, and not of a stream"),
        ({"evaluation": {"blind": "vision"}}, "evaluation.blind needs samples that are all known"),
        ({"data": {"kind": "stream", "source": "x", "hold_out": []}}, "a stream is never read whole"),
        ({"data": {"kind": "stream", "sources": "x"}}, "source"),
        ({"data": {"kind": "mixture", "parts": [{"data": WORLD}]}}, "parts"),
    ],
)
def test_a_recipe_that_asks_a_stream_for_more_is_refused(
    changes: dict[str, Any], message: str, recipes: dict[str, dict[str, Any]]
) -> None:
    with pytest.raises(SpecError, match=message):
        validate_recipe({**recipes["parquet"], "augmentation": {}, **changes})


def test_another_source_can_be_given_to_a_stream(recipes: dict[str, dict[str, Any]]) -> None:
    changed = as_recipe(recipes["tars"], data="hf:org/name").data.model_dump()
    assert changed["source"] == "hf:org/name"
    assert changed["shuffle_buffer"] == 8
