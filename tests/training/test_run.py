"""Runs, end to end at tiny size: resumption, determinism, errors before anything is written, and what is written."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from renaissance.api import TaskEntry, hookimpl
from renaissance.builtin.task_entries import ItmOptions
from renaissance.container import load
from renaissance.errors import (
    CheckpointError,
    DataError,
    NonFiniteError,
    OutputError,
    RenaissanceError,
    SampleError,
    SpecError,
)
from renaissance.evaluation.evaluate import evaluate
from renaissance.pretrained import from_pretrained
from renaissance.progress import Silent
from renaissance.recipe import load_recipe, validate_recipe
from renaissance.registry import Plugin, Registry
from renaissance.toolkit import recompute
from renaissance.training import folder as run_folder
from renaissance.training import loop, update
from renaissance.training.checkpoint import newest_checkpoint
from renaissance.training.folder import check_same
from renaissance.training.run import as_recipe, run
from tests.evaluation.prepared_cases import captioned, write

Recipes = Callable[..., dict[str, Any]]


class KilledError(Exception):
    """Stands for a process that ends in the middle."""


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def interrupted(recipe: dict[str, Any], out: Path, updates: int) -> None:
    """Run until so many updates are done, and end as a kill would."""
    with pytest.MonkeyPatch.context() as patch:
        real = loop.update
        done: list[int] = []

        def counted(*arguments: Any, **options: Any) -> Any:
            if len(done) == updates:
                raise KilledError
            done.append(1)
            return real(*arguments, **options)

        patch.setattr(loop, "update", counted)
        with pytest.raises(KilledError):
            run(recipe, out=out)


# --- the same again ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_recipe(tiny_spec: Callable[..., str]) -> dict[str, Any]:
    """Twelve updates with dropout, over two epochs, a checkpoint every four."""
    return {
        "name": "tiny",
        "start": tiny_spec(dropout=0.1),
        "tasks": {"mlm": {}, "itm": {}, "itc": {"options": {"width": 16}}},
        "data": {"kind": "world", "train": 24, "test": 6, "captions": 2, "image_size": 32},
        "augmentation": {"crop": [0.5, 1.0]},
        "batch": {"size": 4},
        "budget": {"steps": 12},
        "schedule": {"warmup_steps": 2},
        "optimiser": {"lr": 0.002},
        "evaluation": {"tasks": {"retrieval": {}}, "untrained": False},
        "checkpoint_every": 4,
        "keep_checkpoints": 3,
    }


@pytest.fixture(scope="module")
def whole(long_recipe: dict[str, Any], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(long_recipe, out=folder)
    return folder


def test_the_same_recipe_and_seed_give_the_same_weights(
    long_recipe: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    run(long_recipe, out=tmp_path / "again")
    assert same(weights(whole), weights(tmp_path / "again"))


def test_another_seed_gives_other_weights(long_recipe: dict[str, Any], whole: Path, tmp_path: Path) -> None:
    short = {**long_recipe, "budget": {"steps": 3}}
    first = run(short, out=tmp_path / "first").folder
    second = run(short, out=tmp_path / "second", seed=1).folder
    assert not same(weights(first), weights(second))


def test_gradient_checkpointing_changes_no_weight_of_a_run_nor_of_a_resumed_one(
    long_recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, layers = recompute.checkpoint, []

    def checkpoint(layer: Any, *arguments: Any, **options: Any) -> Any:
        layers.append(layer)
        return real(layer, *arguments, **options)

    monkeypatch.setattr(recompute, "checkpoint", checkpoint)
    plain = {**long_recipe, "budget": {"steps": 6}, "checkpoint_every": 2}
    again = {**plain, "gradient_checkpointing": True}
    run(plain, out=tmp_path / "plain")
    assert layers == []
    run(again, out=tmp_path / "again")
    assert layers
    interrupted(again, tmp_path / "cut", 5)
    run(again, out=tmp_path / "cut", resume=True)
    for name in ("again", "cut"):
        assert same(weights(tmp_path / "plain"), weights(tmp_path / name)), name


@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    workers: int, long_recipe: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    recipe = {**long_recipe, "workers": workers}
    interrupted(recipe, tmp_path / "run", 10)
    assert not (tmp_path / "run" / "model").exists()
    resumed = run(recipe, out=tmp_path / "run", resume=True)
    assert same(weights(whole), weights(tmp_path / "run"))
    expected = json.loads((whole / "scores.json").read_text())
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [10, 12]
    assert resumed.scores["scores"] == expected["scores"]
    assert resumed.scores["training"] == expected["training"]


@pytest.mark.parametrize(
    ("rules", "changes"),
    [
        ("frozen text, lora(rank=2) text", {"precision": "bf16"}),
        (
            "frozen vision",
            {
                "store": True,
                "augmentation": {"crop": [0.5, 1.0], "views": 2},
                "batch": {"size": 4, "accumulation": 2, "cached": True},
            },
        ),
    ],
    ids=["adapters in bf16", "a store and parts of a batch"],
)
def test_what_else_a_recipe_may_say_is_resumed_to_the_same_weights(
    rules: str, changes: dict[str, Any], long_recipe: dict[str, Any], tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    recipe = {**long_recipe, "start": tiny_spec(rules, dropout=0.1), "budget": {"steps": 5}, "checkpoint_every": 2}
    recipe |= {"tasks": {"itm": {}, "itc": {"options": {"width": 16}}}, "evaluation": {"untrained": False}, **changes}
    run(recipe, out=tmp_path / "whole")
    interrupted(recipe, tmp_path / "cut", 3)
    run(recipe, out=tmp_path / "cut", resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_a_damaged_checkpoint_is_passed_over_for_the_next_older(
    long_recipe: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    interrupted(long_recipe, tmp_path / "run", 9)
    newest = tmp_path / "run" / "checkpoints" / "step-00000008"
    damaged = newest / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x01")
    found, faults = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert found is not None
    assert found.name == "step-00000004"
    assert faults == ["step-00000008: model.safetensors was changed"]
    run(long_recipe, out=tmp_path / "run", resume=True)
    assert same(weights(whole), weights(tmp_path / "run"))


def test_a_checkpoint_without_its_manifest_is_passed_over(whole: Path, tmp_path: Path) -> None:
    copied = tmp_path / "checkpoints"
    shutil.copytree(whole / "checkpoints", copied)
    (copied / "step-00000012" / "manifest.json").unlink()
    found, faults = newest_checkpoint(copied)
    assert found is not None
    assert found.name == "step-00000008"
    assert len(faults) == 1


def test_old_checkpoints_are_dropped_and_none_is_half_there(whole: Path) -> None:
    names = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert names == ["step-00000004", "step-00000008", "step-00000012"]


def test_a_run_of_another_recipe_is_not_resumed(long_recipe: dict[str, Any], whole: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is the run of another recipe \(they differ in: optimiser\)"):
        run({**long_recipe, "optimiser": {"lr": 0.1}}, out=whole, resume=True)


def test_how_processes_share_a_training_may_change_on_resume(long_recipe: dict[str, Any], whole: Path) -> None:
    check_same(validate_recipe({**long_recipe, "distributed": {"strategy": "fsdp"}}), whole)


def test_what_is_no_run_is_not_resumed(tiny_recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a run, so there is nothing to resume"):
        run(tiny_recipe(), out=tmp_path / "nothing", resume=True)


# --- what is written --------------------------------------------------------------------------------------------------


def test_the_run_folder_holds_recipe_environment_metrics_scores_and_model(
    long_recipe: dict[str, Any], whole: Path
) -> None:
    assert load_recipe(whole / "recipe.yaml") == validate_recipe(long_recipe)
    environment = json.loads((whole / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0] or environment["packages"]["torch"]
    assert str(Path.home()) not in (whole / "environment.json").read_text()
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 12]
    assert {"loss/mlm", "loss/itm", "loss/itc", "itm/accuracy", "lr"} <= set(lines[0])
    assert json.loads((whole / "run.json").read_text())["state"] == "done"
    assert load(whole / "model").plan.tasks.keys() == {"mlm", "itm", "itc", "retrieval"}


def test_the_saved_model_holds_the_recipe_that_makes_it_again(long_recipe: dict[str, Any], whole: Path) -> None:
    assert as_recipe(whole / "model" / "recipe.yaml") == validate_recipe(long_recipe)
    assert "recipe.yaml" in json.loads((whole / "model" / "manifest.json").read_text())["files"]


def test_scores_say_what_was_measured_on_what_and_after_which_training(whole: Path) -> None:
    scores = json.loads((whole / "scores.json").read_text())
    assert scores["training"] == {"samples": 24, "updates": 12, "batch_size": 4}
    assert scores["splits"]["test"]["images"] == 6
    assert scores["splits"]["test"]["captions"] == 12
    rows = {(row["model"], row["split"], row["task"], row["name"]): row for row in scores["scores"]}
    assert ("trained", "test", "itm", "accuracy") in rows
    for name in ("text R@1", "image R@1", "R@1", "R@5", "R@10"):
        row = rows["trained", "test", "retrieval", name]
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 100
        assert 0 < row["chance"] <= 100
        assert row["n"] >= row["units"]


class Removing(Silent):
    """Removes a file when the training begins."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def track(self, items: Iterable[Any], total: int, what: str) -> Iterator[Any]:
        if what == "Training":
            self.file.unlink()
        yield from items


def test_a_manifest_that_is_gone_when_a_training_is_over_loses_neither_the_training_nor_what_it_said(
    tiny_recipe: Recipes, tmp_path: Path
) -> None:
    coco = write(tmp_path / "coco", "coco-captions", {"train": captioned(*range(8)), "val": captioned(8, 9)})
    data, evaluation = {"kind": "prepared", "path": str(coco)}, {"tasks": {"itm": {}}, "untrained": False}
    recipe = tiny_recipe(data=data, tasks={"itm": {}}, evaluation=evaluation)
    done = run(recipe, out=tmp_path / "run", progress=Removing(coco / "manifest.json"))
    assert not (coco / "manifest.json").exists()
    assert done.scores["corpora"] == [{"name": "", "layout": "coco-captions"}]


def test_the_scores_of_a_run_are_those_of_its_saved_model(long_recipe: dict[str, Any], whole: Path) -> None:
    model = load(whole / "model")
    (measured,) = evaluate(model, validate_recipe(long_recipe).data, blind=True)
    written = [row for row in json.loads((whole / "scores.json").read_text())["scores"] if row["model"] == "trained"]
    assert [{"model": "trained", **row} for row in measured.rows()] == written


def test_the_untrained_model_is_measured_when_asked(tiny_recipe: Recipes, tmp_path: Path) -> None:
    evaluation = {"tasks": {"retrieval": {}}, "untrained": True, "every": 2, "validation": 4}
    done = run(tiny_recipe(evaluation=evaluation), out=tmp_path / "run")
    assert {row["model"] for row in done.scores["scores"]} == {"untrained", "trained"}
    assert done.scores["training"]["samples"] == 20
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"validation/retrieval/R@1"' in lines


def test_a_tracker_writes_into_the_run_folder_alone(
    tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run(tiny_recipe(trackers=["tensorboard"]), out=tmp_path / "run")
    events = list((tmp_path / "run").rglob("events.out.tfevents.*"))
    assert events
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert b"loss/mlm" in b"".join(path.read_bytes() for path in events)


# --- errors come before anything is written ---------------------------------------------------------------------------


def test_a_folder_that_is_not_a_run_is_left_as_it_was(tiny_recipe: Recipes, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "letter.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists and is not a run"):
        run(tiny_recipe(), out=taken)
    assert [path.name for path in taken.iterdir()] == ["letter.txt"]


def test_a_folder_that_the_disk_does_not_keep_is_no_run_of_another(
    tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(run_folder, "sync_folder", refused)
    with pytest.raises(OutputError, match=r"run' cannot be made: Input/output error"):
        run(tiny_recipe(), out=tmp_path / "run")


def test_a_run_is_not_overwritten(tiny_recipe: Recipes, whole: Path) -> None:
    before = (whole / "scores.json").read_bytes()
    with pytest.raises(OutputError, match="is a run already; add --resume"):
        run(tiny_recipe(), out=whole)
    assert (whole / "scores.json").read_bytes() == before


@pytest.mark.parametrize("left", [b'{"step": 4, "lo', b'{"step": 4\xff\x00\xfe'])
def test_a_log_line_that_a_kill_or_a_power_cut_cut_off_does_not_stop_a_resume(
    left: bytes, long_recipe: dict[str, Any], tmp_path: Path
) -> None:
    interrupted(long_recipe, tmp_path / "run", 6)
    with (tmp_path / "run" / "metrics.jsonl").open("ab") as file:
        file.write(left)
    resumed = run(long_recipe, out=tmp_path / "run", resume=True)
    assert resumed.scores["training"]["updates"] == 12


def test_resume_takes_the_runs_of_the_name_and_no_longer_name(
    tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = run(tiny_recipe(), resume=False).folder
    run(tiny_recipe(name="tiny-other"))
    assert run(tiny_recipe(), resume=True).folder == first == Path("runs/tiny")


def test_a_primary_score_that_its_task_does_not_have_is_refused_before_the_training(
    tiny_recipe: Recipes, tmp_path: Path
) -> None:
    measured = {"tasks": {"retrieval": {}}, "primary": "test/retrieval/R@11"}
    with pytest.raises(SpecError, match="no score 'R@11'; it has: text R@1"):
        run(tiny_recipe(evaluation=measured), out=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_is_not_resumed_on_other_samples(long_recipe: dict[str, Any], tmp_path: Path, cache: Path) -> None:
    interrupted(long_recipe, tmp_path / "run", 6)
    state = next((tmp_path / "run" / "checkpoints").iterdir()) / "state.json"
    assert json.loads(state.read_text())["identity"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("renaissance.training.course.samples_digest", lambda samples: "of other samples")
        with pytest.raises(CheckpointError, match="not those of"):
            run(long_recipe, out=tmp_path / "run", resume=True)


def test_what_to_do_with_a_bad_sample_may_change_on_resume(long_recipe: dict[str, Any], tmp_path: Path) -> None:
    interrupted(long_recipe, tmp_path / "run", 6)
    resumed = run({**long_recipe, "on_bad_sample": "skip", "skip_budget": 0.1}, out=tmp_path / "run", resume=True)
    assert resumed.scores["training"]["updates"] == 12


def test_a_state_file_that_is_damaged_is_that_of_an_unfinished_run(
    tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = run(tiny_recipe()).folder
    (folder / "run.json").write_text('{"sta')
    assert run(tiny_recipe(), resume=True).folder == folder


def test_a_task_of_weight_0_is_left_out_of_the_model(tiny_recipe: Recipes, tmp_path: Path) -> None:
    folder = run(tiny_recipe(tasks={"itc": {}, "mlm": {"weight": 0}}), out=tmp_path / "run").folder
    assert sorted(load(folder / "model").tasks) == ["itc", "retrieval"]


def test_evaluation_in_training_changes_no_weight(long_recipe: dict[str, Any], tmp_path: Path) -> None:
    short = {**long_recipe, "budget": {"steps": 6}}
    measured = {**short["evaluation"], "every": 2, "validation": 4}
    data = {**short["data"], "train": 32}
    # validation takes samples out of training, so both set them aside, and one looks at them once at most
    often = run({**short, "data": data, "evaluation": measured}, out=tmp_path / "often").folder
    seldom = run({**short, "data": data, "evaluation": {**measured, "every": 5}}, out=tmp_path / "seldom").folder
    assert same(weights(often), weights(seldom))
    lines = [json.loads(line) for line in (tmp_path / "often" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation/itm/accuracy" in line] == [2, 4]


FROZEN_VISION = "tiny-vit(image_size=32, patch_size=8) + tiny-bert, random both, frozen vision"
REFUSED = {
    "an unknown recipe": ("demoo", SpecError, "demo"),
    "a split that is not there": ({"evaluation": {"splits": ["tset"]}}, DataError, "no split 'tset'"),
    "a task that cannot be trained": ({"tasks": {"itc": {}, "retrieval": {}}}, SpecError, "measured and not trained"),
    "options in two places": (
        {"evaluation": {"tasks": {"mlm": {"probability": 0.2}}}}, SpecError, "leave evaluation.tasks.mlm empty",
    ),
    "a batch of one": ({"batch": {"size": 1}}, SpecError, "needs other pairs in its batch"),
    "parts of one": ({"batch": {"size": 4, "accumulation": 4}}, SpecError, "needs other pairs in its batch"),
    "a warm-up as long as the epochs": (
        {"budget": {"epochs": 1}, "schedule": {"warmup_steps": 6}}, SpecError, "warm-up of 6 steps is not shorter",
    ),
    "data that are not there": ({"data": {"kind": "images", "path": "nowhere"}}, DataError, "nowhere"),
    "an unknown task": ({"tasks": {"mln": {}}}, SpecError, "Did you mean 'mlm'"),
    "a head that nobody trains": (
        {"tasks": {"itc": {}}, "evaluation": {"tasks": {"itm": {}}}}, SpecError, "'itm' would be measured untrained",
    ),
    "a head of weight 0": (
        {"tasks": {"itc": {}, "itm": {"weight": 0}}, "evaluation": {"tasks": {"itm": {}}}}, SpecError, "untrained",
    ),
    "a task without a score": (
        {"evaluation": {"tasks": {"mlm": {}}, "untrained": False}}, SpecError, "'mlm' has no score of its own",
    ),
    "a primary score of another split": (
        {"evaluation": {"primary": "tset/itm/accuracy"}}, SpecError, "Did you mean 'test'",
    ),
    "a bridge without stored towers": (
        {"evaluation": {"tasks": {"retrieval": {}}, "bridge": {}}}, SpecError, "stored features of both towers",
    ),
    "patches of a frozen tower": (
        {"start": FROZEN_VISION, "tasks": {"mim": {"options": {"patch_size": 8}}}, "evaluation": {}},
        SpecError,
        "the frozen vision tower would learn nothing",
    ),
    "a store without a frozen tower": ({"store": True}, SpecError, "no tower is frozen"),
    "nothing to measure in training": (
        {"tasks": {"mlm": {}}, "evaluation": {"every": 2}}, SpecError, "evaluation.every measures nothing",
    ),
    "a test split of one image": (
        {"data": {"kind": "world", "train": 24, "test": 1, "captions": 2, "image_size": 32}},
        DataError,
        "'test' has one image",
    ),
    "a primary score of a task that is not measured": (
        {"evaluation": {"primary": "test/retrieval/R@1"}}, SpecError, "the task 'retrieval' is not measured",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_run_is_refused_before_anything_is_written(
    change: Any,
    error: type[Exception],
    message: str,
    tiny_recipe: Recipes,
    tiny_spec: Callable[..., str],
    tmp_path: Path,
) -> None:
    recipe: Any = change
    if isinstance(change, dict):
        recipe = tiny_recipe(**change)
    out = tmp_path / "run"
    with pytest.raises(error, match=message):
        run(recipe, out=out)
    assert not out.exists()


def test_a_nan_in_a_loss_stops_before_the_update(
    tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, kept = update._check_losses, {}

    def poisoned(output: Any, step: int) -> None:
        if step == 2:
            output.losses["itm"].fill_(float("nan"))
        real(output, step)

    real_checkpoint = loop.make_optimiser

    def watched(model: Any, optimiser: Any) -> Any:
        kept["model"] = model
        made = real_checkpoint(model, optimiser)
        real_step = made.step

        def step(*arguments: Any, **options: Any) -> Any:
            found = real_step(*arguments, **options)
            kept["weights"] = {name: value.clone() for name, value in model.state_dict().items()}
            kept["updates"] = kept.get("updates", 0) + 1
            return found

        made.step = step
        return made

    monkeypatch.setattr(update, "_check_losses", poisoned)
    monkeypatch.setattr(loop, "make_optimiser", watched)
    with pytest.raises(NonFiniteError, match=r"At update 3 the loss of 'itm' is nan; the weights were not updated"):
        run(tiny_recipe(), out=tmp_path / "run")
    assert kept["updates"] == 2
    assert same(kept["weights"], kept["model"].state_dict())
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "running"


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops_before_the_update(
    clip_norm: float | None, tiny_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, kept = loop.make_optimiser, {}

    def poisoned(model: Any, optimiser: Any) -> Any:
        kept["model"], kept["weights"] = model, {name: value.clone() for name, value in model.state_dict().items()}
        model.encoder.fusion.layers[0].cross.attention.query.weight.register_hook(lambda own: own * math.inf)
        return real(model, optimiser)

    monkeypatch.setattr(loop, "make_optimiser", poisoned)
    told = r"At update 1 the gradient's norm is (nan|inf); the weights were not updated"
    with pytest.raises(NonFiniteError, match=told):
        run(tiny_recipe(optimiser={"lr": 0.001, "clip_norm": clip_norm}), out=tmp_path / "run")
    assert same(kept["weights"], kept["model"].state_dict())
    assert list((tmp_path / "run" / "checkpoints").glob("*")) == []


def test_a_nan_weight_is_found_in_the_same_update(tiny_recipe: Recipes, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError):
        run(tiny_recipe(optimiser={"lr": 1e9, "clip_norm": None}), out=tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


def test_what_is_trained_on_a_task_that_cannot_be_measured_is_saved(tiny_recipe: Recipes, tmp_path: Path) -> None:
    done = run(tiny_recipe(tasks={"mlm": {}}, evaluation={}, budget={"steps": 2}), out=tmp_path / "run")
    assert done.scores["scores"] == []
    assert load(done.model_folder).plan.tasks.keys() == {"mlm"}


def test_a_task_of_a_plugin_is_trained_under_its_qualified_name(tiny_recipe: Recipes, tmp_path: Path) -> None:
    entry = TaskEntry(
        name="other", summary="", factory="renaissance.builtin.itm:ImageTextMatching", options=ItmOptions,
        outputs=frozenset({"pooled"}), evaluates=False,
    )  # fmt: skip
    module = ModuleType("plugin_of_test_run")
    module.register_tasks = hookimpl(lambda: [entry])  # type: ignore[attr-defined]  # a module made here
    sys.modules[module.__name__] = module
    registry = Registry([Plugin("third", module.__name__, "renaissance-plugin-third", "1")])
    for name in ("other", "third:other"):
        recipe = tiny_recipe(tasks={name: {}, "itm": {}}, evaluation={"untrained": False}, budget={"steps": 2})
        folder = run(recipe, out=tmp_path / name[:5], registry=registry).folder
        assert set(json.loads((folder / "model" / "config.json").read_text())["tasks"]) == {"third:other", "itm"}
        assert "loss/other" in (folder / "metrics.jsonl").read_text()


def test_reranking_without_matching_is_refused_before_the_training(tiny_recipe: Recipes, tmp_path: Path) -> None:
    recipe = tiny_recipe(tasks={"itc": {}}, evaluation={"untrained": False, "tasks": {"retrieval": {"rerank": 3}}})
    with pytest.raises(RenaissanceError, match="itm"):
        run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_from_stored_features_gives_the_same_weights_and_scores(
    tiny_recipe: Recipes, tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    frozen = tiny_recipe(start=tiny_spec("frozen both"))
    plain, stored = run(frozen, out=tmp_path / "plain"), run({**frozen, "store": True}, out=tmp_path / "stored")
    assert same(weights(plain.folder), weights(stored.folder))
    assert plain.scores["scores"] == stored.scores["scores"]


def test_two_runs_of_different_precision_follow_each_other(tiny_recipe: Recipes, tmp_path: Path) -> None:
    run(tiny_recipe(budget={"steps": 2}), out=tmp_path / "fp32")
    run(tiny_recipe(budget={"steps": 2}, precision="bf16"), out=tmp_path / "bf16")
    assert not same(weights(tmp_path / "fp32"), weights(tmp_path / "bf16"))


# --- bad samples ------------------------------------------------------------------------------------------------------


@pytest.fixture
def broken_data(tmp_path: Path) -> Path:
    """Twelve pictures with captions, of which one is broken."""
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for number in range(12):
        Image.new("RGB", (32, 32), (20 * number, 100, 255 - 20 * number)).save(folder / f"{number}.png")
        lines.append(
            json.dumps({"image": f"{number}.png", "caption": f"a picture of number {number}", "part": "train"})
        )
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:40])
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_bad_image_stops_a_run_and_is_named_with_its_row(
    tiny_recipe: Recipes, broken_data: Path, tmp_path: Path
) -> None:
    data = {"kind": "images", "path": str(broken_data), "hold_out": []}
    recipe = tiny_recipe(data=data, evaluation={"untrained": False}, budget={"epochs": 1})
    with pytest.raises(SampleError, match=r"row 4.*3\.png"):
        run(recipe, out=tmp_path / "run")


def test_skipped_samples_are_counted_and_named(tiny_recipe: Recipes, broken_data: Path, tmp_path: Path) -> None:
    data = {"kind": "images", "path": str(broken_data), "hold_out": []}
    recipe = tiny_recipe(
        data=data, evaluation={"untrained": False}, on_bad_sample="skip", skip_budget=0.5, budget={"epochs": 1}
    )
    done = run(recipe, out=tmp_path / "run")
    assert len(done.scores["skipped"]) == 1
    assert "3.png" in done.scores["skipped"][0]


def test_one_sample_that_a_blind_twin_cannot_have_is_told_before_anything_is_written(
    tiny_recipe: Recipes, broken_data: Path, tmp_path: Path
) -> None:
    lines = [{"image": f"{number}.png", "caption": f"a picture of number {number}"} for number in range(12)]
    lines += [{"image": "7.png", "caption": line["caption"]} for line in lines if line["image"] != "7.png"]
    (broken_data / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = {"kind": "images", "path": str(broken_data), "hold_out": []}
    recipe = tiny_recipe(data=data, evaluation={"untrained": False, "blind": "text"}, on_bad_sample="skip")
    with pytest.raises(DataError, match=r"no other sample has 12 texts unlike those of '7"):
        run({**recipe, "skip_budget": 0.5}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- a start from a saved model ---------------------------------------------------------------------------------------


def tuned(whole: Path, surgery: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "start": {"model": str(whole), "surgery": surgery},
        "tasks": {"itm": {}},
        "evaluation": {"untrained": True},
        **changes,
    }


def test_matching_alone_is_fine_tuned_from_a_pretrained_model(
    whole: Path, tiny_recipe: Recipes, tmp_path: Path
) -> None:
    recipe = tiny_recipe(**tuned(whole, {"drop_tasks": ["mlm", "itc"]}))
    done = run(recipe, out=tmp_path / "tuned")
    before, after = weights(whole), weights(tmp_path / "tuned")
    dropped = {name for name in before if name.startswith(("tasks.mlm.", "tasks.itc."))}
    assert set(after) == set(before) - dropped
    assert not torch.equal(before["tasks.itm.head.weight"], after["tasks.itm.head.weight"])
    assert done.scores["surgery"] == {"copied": len(after), "new": 0, "dropped": len(dropped)}
    report = json.loads((tmp_path / "tuned" / "surgery.json").read_text())
    assert report == {"copied": sorted(after), "new": [], "dropped": sorted(dropped)}
    pretrained = [row for row in json.loads((whole / "scores.json").read_text())["scores"] if row["task"] == "itm"]
    untrained = [row for row in done.scores["scores"] if row["model"] == "untrained"]
    assert [row["value"] for row in pretrained] == [row["value"] for row in untrained]


def test_a_head_can_be_added(whole: Path, tiny_recipe: Recipes, tmp_path: Path) -> None:
    first = tiny_recipe(**tuned(whole, {"drop_tasks": ["mlm", "itc"]}), budget={"steps": 2})
    run(first, out=tmp_path / "first")
    again = tiny_recipe(
        **tuned(tmp_path / "first", {"add_tasks": ["mlm"]}, tasks={"itm": {}, "mlm": {}}), budget={"steps": 2}
    )
    done = run(again, out=tmp_path / "again")
    assert done.scores["surgery"]["new"] == len(
        [name for name in weights(tmp_path / "again") if name.startswith("tasks.mlm")]
    )


@pytest.mark.parametrize("surgery", [{}, {"drop_tasks": ["mlm"]}, {"drop_tasks": ["mlm", "itc"], "add_tasks": ["vqa"]}])
def test_surgery_that_is_not_declared_exactly_is_an_error(
    surgery: dict[str, Any], whole: Path, tiny_recipe: Recipes, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=r"declare.*'surgery: \{"):
        run(tiny_recipe(**tuned(whole, surgery)), out=tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()


def test_other_options_for_a_kept_head_are_refused(whole: Path, tiny_recipe: Recipes, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        **tuned(whole, {"drop_tasks": ["mlm", "itc"]}, tasks={"itm": {"options": {"false_share": 0.2}}})
    )
    with pytest.raises(SpecError, match="The saved head of 'itm' was built with other options"):
        run(recipe, out=tmp_path / "tuned")


# --- micro-batches ----------------------------------------------------------------------------------------------------


def test_two_micro_batches_are_nearly_the_whole_batch(tiny_recipe: Recipes, tmp_path: Path) -> None:
    def trained(name: str, accumulation: int) -> dict[str, Tensor]:
        recipe = tiny_recipe(
            tasks={"mlm": {}, "itm": {"weight": 0.0}},
            evaluation={},
            batch={"size": 8, "accumulation": accumulation}, budget={"steps": 3}, optimiser={"lr": 1e-4},
        )  # fmt: skip
        run(recipe, out=tmp_path / name)
        return weights(tmp_path / name)

    whole, parts = trained("whole", 1), trained("parts", 2)
    worst = max(float((whole[name] - parts[name]).abs().max()) for name in whole)
    assert worst < 3 * 3 * 5e-4  # three updates of AdamW move a weight by three learning rates of a head at most


# --- recipes by name --------------------------------------------------------------------------------------------------


def test_data_and_seed_are_replaced_where_they_are_given(tiny_recipe: Recipes) -> None:
    recipe = as_recipe(tiny_recipe(), data="somewhere", seed=7)
    assert (recipe.data.kind, recipe.seed) == ("images", 7)


def test_a_recipe_is_read_from_a_file(tiny_recipe: Recipes, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe()))
    assert as_recipe(path) == as_recipe(tiny_recipe())


# --- one tower --------------------------------------------------------------------------------------------------------

ONE_TOWER = (
    'tiny-vit(image_size=32, patch_size=8, layers=2, width=32, heads=2, mlp_width=64), one-tower(pooling="both"), '
    "random encoder"
)


def test_a_one_tower_model_trains_resumes_and_is_measured(tiny_recipe: Recipes, tmp_path: Path) -> None:
    recipe = tiny_recipe(start=ONE_TOWER)
    done = run(recipe, out=tmp_path / "run")
    assert {row["task"] for row in done.scores["scores"]} >= {"itm"}
    interrupted(recipe, tmp_path / "cut", 1)
    run(recipe, out=tmp_path / "cut", resume=True)
    assert same(weights(tmp_path / "run"), weights(tmp_path / "cut"))


def test_the_store_is_refused_for_a_one_tower_model(tiny_recipe: Recipes, tmp_path: Path) -> None:
    recipe = tiny_recipe(start=f"{ONE_TOWER}, frozen encoder", store=True)
    with pytest.raises(SpecError, match="the blocks of a one-tower model depend on the pair"):
        run(recipe, out=tmp_path / "run")


@pytest.mark.parametrize("start", [ONE_TOWER, None], ids=["one tower", "two towers"])
def test_how_files_are_decoded_goes_with_the_model(
    start: str | None, tiny_spec: Callable[..., str], tiny_recipe: Recipes, tmp_path: Path
) -> None:
    changes = {"start": start or tiny_spec(), "tasks": {"itm": {}}, "evaluation": {"untrained": False}}
    run(tiny_recipe(**changes, decoding="fast"), out=tmp_path / "first")
    assert from_pretrained(tmp_path / "first").encoder.vision.processor.decoding == "fast"
    again = {**changes, "start": {"model": str(tmp_path / "first")}}
    for decoding, expected in ((None, "fast"), ("exact", "exact")):
        run(tiny_recipe(**again, decoding=decoding), out=tmp_path / expected)
        assert from_pretrained(tmp_path / expected).encoder.vision.processor.decoding == expected


@pytest.mark.parametrize("start", [ONE_TOWER, None], ids=["one tower", "two towers"])
def test_fine_tuning_takes_larger_images_and_longer_texts_where_that_is_declared(
    start: str | None, whole: Path, tiny_recipe: Recipes, tmp_path: Path
) -> None:
    pretrained = whole
    if start is not None:
        run(tiny_recipe(start=start), out=tmp_path / "first")
        pretrained = tmp_path / "first"
    tasks = {name: {} for name in from_pretrained(pretrained).tasks if name != "retrieval"}
    surgery = {"image_size": 48, "max_tokens": 100}
    done = run(tiny_recipe(start={"model": str(pretrained), "surgery": surgery}, tasks=tasks), out=tmp_path / "tuned")
    assert done.scores["surgery"]["resized"] == 2
    model = from_pretrained(tmp_path / "tuned")
    assert model.encoder.vision.processor.image_size == (48, 48)
    assert model.encoder.text.processor.facts.max_tokens == 100
