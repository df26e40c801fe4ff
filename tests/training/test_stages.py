from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from renaissance.assemble import assemble
from renaissance.errors import SpecError
from renaissance.models.parts import Still
from renaissance.recipe import validate_recipe
from renaissance.recipe.freezing import Freezing
from renaissance.recipe.training import Optimiser
from renaissance.resolve import resolve
from renaissance.training import loop
from renaissance.training.optimiser import make_optimiser
from renaissance.training.processes import Processes
from renaissance.training.run import run
from renaissance.training.stages import LONG, always_frozen, begin_stage, check_parts, number_at, stages_of
from renaissance.training.train_step import TrainStep
from tests.processes import in_two_processes

Recipes = Callable[..., dict[str, Any]]
Tiny = Callable[..., Any]
SCHEDULE = Freezing.model_validate(
    {"stages": [{"at": 2, "thaw": ["text[-1:]"]}, {"at": 4, "thaw": ["vision"], "freeze": ["text", "fusion.norms"]}]}
)
# a large eps: else AdamW makes a step of what rounding leaves of a gradient of 0
SETTINGS = Optimiser(lr=0.1, eps=1.0)


def stages(model: Any, steps: int = 100, epoch: int = 10, **freezing: Any) -> list[tuple[int, list[str]]]:
    """Return when each stage of a schedule begins, and the rules that it adds to those before."""
    found = stages_of(model, Freezing.model_validate(freezing), steps=steps, epoch=epoch)
    return [
        (after.first, [str(rule) for rule in after.rules[len(before.rules) :]]) for before, after in pairwise(found)
    ]


# --- what a schedule says -------------------------------------------------------------------------------------------


def test_a_training_without_a_schedule_has_one_stage(tiny_model: Tiny) -> None:
    assert stages(tiny_model(("itm",), "frozen text")) == []


@pytest.mark.parametrize(("unit", "at", "first"), [("step", 7, 7), ("epoch", 2, 20), ("share", 0.25, 25)])
def test_a_stage_begins_after_so_many_updates_or_epochs_or_that_share(
    unit: str, at: float, first: int, tiny_model: Tiny
) -> None:
    model = tiny_model(("itm",), "frozen both")
    assert stages(model, unit=unit, stages=[{"at": at, "thaw": ["both"]}]) == [
        (first, ["trainable vision", "trainable text"])
    ]


def test_a_part_is_thawed_layer_by_layer_from_the_top(tiny_model: Tiny) -> None:
    model = tiny_model(("itm",), "frozen text")
    assert stages(model, gradual={"part": "text", "every": 5}) == [
        (5, ["trainable text[1:]"]),
        (10, ["trainable text"]),
    ]


def test_what_comes_at_one_share_is_one_stage() -> None:
    freezing = {"gradual": {"part": "text", "every": 0.1}, "stages": [{"at": 0.3, "freeze": ["vision"]}]}
    with torch.device("meta"):
        model = assemble(resolve("tiny-vit(layers=1) + tiny-bert(layers=3), random both, frozen text", ("itm",)))
    assert stages(model, unit="share", **freezing)[2:] == [(30, ["trainable text", "frozen vision"])]


def test_an_unknown_length_is_left_out_of_a_refusal(tiny_model: Tiny) -> None:
    freezing = Freezing.model_validate({"unit": "share", "stages": [{"at": 1e-13, "thaw": ["text"]}]})
    with pytest.raises(SpecError, match="does not begin between the stage before it and the end") as caught:
        stages_of(tiny_model(("itm",), "frozen text"), freezing)
    assert str(LONG) not in str(caught.value)


def test_a_store_may_hold_what_stays_frozen_in_every_stage(tiny_model: Tiny) -> None:
    model = tiny_model(("itm",), "frozen both")
    late = stages_of(model, SCHEDULE, steps=10)
    assert always_frozen(model.encoder, late[:1])["text"] == Still(whole=True, blocks=2)
    held = always_frozen(model.encoder, late)
    assert held["vision"] == Still(whole=False, blocks=None)
    assert held["text"] == Still(whole=False, blocks=1)


@pytest.mark.parametrize(
    ("freezing", "message"),
    [
        (
            {"stages": [{"at": 3, "thaw": ["vision"]}]},
            "the stage after update 3 changes nothing: 'vision' trains already",
        ),
        ({"stages": [{"at": 3, "freeze": ["text[:1]"]}]}, r"changes nothing: 'text\[:1\]' is frozen already"),
        ({"stages": [{"at": 100, "thaw": ["text"]}]}, "begins with update 101, and the training has 100"),
        (
            {"unit": "epoch", "stages": [{"at": 10, "thaw": ["text"]}]},
            "the stage after epoch 10 begins with update 101",
        ),
        ({"unit": "share", "stages": [{"at": 0.001, "thaw": ["text"]}]}, "begins with update 1, .* let it begin"),
        ({"gradual": {"part": "text", "every": 50}}, "the stage after update 100 begins with update 101"),
        ({"gradual": {"part": "encoder", "every": 5}}, "'encoder' lists no layers in this model; thaw it by a stage"),
        ({"stages": [{"at": 3, "thaw": ["encoder"]}]}, "'encoder' is a part of one-tower models"),
        ({"stages": [{"at": 3, "thaw": ["text[:9]"]}]}, "'tiny-bert' has 2 layers, so .* reaches beyond it"),
        ({"stages": [{"at": 3, "thaw": ['text("*.nothing")']}]}, "names no parameter; they are called such as"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(freezing: dict[str, Any], message: str, tiny_model: Tiny) -> None:
    with pytest.raises(SpecError, match=message):
        stages(tiny_model(("itm",), "frozen text"), **freezing)


@pytest.mark.parametrize(
    ("freezing", "message"),
    [
        ({"stages": [{"at": 3}]}, "freezing.stages.0': a stage says what to 'thaw' or to 'freeze'"),
        ({"stages": [{"at": 3, "thaw": ["txt"]}]}, "'txt' is no part of a model"),
        ({"stages": [{"at": 3, "thaw": ["text[1"]}]}, "a slice is"),
        ({"stages": [{"at": 1.5, "thaw": ["text"]}]}, "with unit 'step' times are whole numbers, and not 1.5"),
        ({"unit": "share", "stages": [{"at": 3, "thaw": ["text"]}]}, "times are shares below 1, and not 3"),
        ({"stages": [{"at": 3, "thaw": ["text"]}, {"at": 3, "freeze": ["text"]}]}, "each at a time of its own"),
        ({"gradual": {"part": "text[1:]", "every": 5}}, "is not thawed from the top; name one whole part"),
    ],
)
def test_a_schedule_of_a_wrong_form_is_refused_with_the_recipe(
    freezing: dict[str, Any], message: str, tiny_recipe: Recipes
) -> None:
    with pytest.raises(SpecError, match=message):
        validate_recipe(tiny_recipe(freezing=freezing))


def test_a_schedule_that_freezes_all_that_there_is_to_train_is_refused(tiny_model: Tiny) -> None:
    with pytest.raises(SpecError, match="after update 3 everything is frozen; leave one part trainable"):
        stages(tiny_model(()), stages=[{"at": 3, "freeze": ["both", "fusion"]}])


def test_a_schedule_that_cannot_be_leaves_no_folder(tiny_recipe: Recipes, tmp_path: Path) -> None:
    recipe = tiny_recipe(freezing={"stages": [{"at": 4, "thaw": ["text"]}]})
    with pytest.raises(SpecError, match="begins with update 5, and the training has 4"):
        run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- trained --------------------------------------------------------------------------------------------------------


@pytest.fixture
def staged(tiny_recipe: Recipes, tiny_spec: Callable[..., str]) -> dict[str, Any]:
    """Nine updates in three stages, with dropout and averaged weights; a checkpoint every two."""
    return tiny_recipe(
        start=tiny_spec("frozen both", dropout=0.1),
        freezing={
            "unit": "step",
            "stages": [{"at": 3, "thaw": ["text[-1:]"]}, {"at": 6, "thaw": ["vision"], "freeze": ["text"]}],
        },
        budget={"steps": 9},
        checkpoint_every=2,
        keep_checkpoints=9,
        ema={"decay": 0.9},
    )


def tensors(folder: Path, step: int, of: str) -> dict[str, torch.Tensor]:
    found = load_file(folder / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
    return {name: value for name, value in found.items() if name.startswith(of)}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    assert first
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def cut(recipe: dict[str, Any], out: Path, updates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a recipe until it is killed before an update."""
    real = loop.update
    done: list[int] = []

    def counted(*arguments: Any, **options: Any) -> Any:
        if len(done) == updates:
            raise KeyError("killed")
        done.append(1)
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "update", counted)
        with pytest.raises(KeyError):
            run(recipe, out=out)


def test_each_stage_trains_just_what_it_says_and_a_resumed_run_ends_in_the_same_weights(
    staged: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    run(staged, out=whole)
    for part, first, second, still in (
        ("encoder.vision.", 2, 6, True),
        ("encoder.vision.", 6, 8, False),
        ("encoder.text.blocks.0.", 2, 8, True),
        ("encoder.text.blocks.1.", 2, 4, False),
        ("encoder.text.", 6, 9, True),
    ):
        assert same(tensors(whole, first, part), tensors(whole, second, part)) is still, (part, first, second)
    for killed in (5, 7):  # within the second stage, and where the checkpoint is that of the third one's start
        run_folder = tmp_path / f"cut{killed}"
        cut(staged, run_folder, killed, monkeypatch)
        run(staged, out=run_folder, resume=True)
        for name in ("model.safetensors", "optimiser.safetensors"):
            files = [load_file(folder / "checkpoints" / "step-00000009" / name) for folder in (whole, run_folder)]
            assert same(*files), (killed, name)
        assert same(*(load_file(folder / "model" / "model.safetensors") for folder in (whole, run_folder)))


def test_the_optimiser_keeps_what_it_knows_of_what_goes_on_and_forgets_the_rest(
    tiny_model: Tiny, tiny_batch: Tiny
) -> None:
    model = tiny_model(("itm",), "frozen vision")
    freezing = Freezing.model_validate({"stages": [{"at": 1, "thaw": ["vision"], "freeze": ["text"]}]})
    plan = stages_of(model, freezing, steps=9)
    step = TrainStep(model, {"itm": 1.0})
    optimiser = make_optimiser(step, SETTINGS)
    step(tiny_batch(model)).loss.backward()
    optimiser.step()
    known = model.encoder.fusion.layers[0].cross.attention.value.weight
    moment = optimiser.state[known]["exp_avg"]
    assert number_at(plan, 1) == 1
    begin_stage(step, optimiser, plan, 1, SETTINGS)
    assert optimiser.state[known]["exp_avg"] is moment
    trained = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    assert {id(parameter) for parameter in optimiser.state} <= trained
    assert all(id(parameter) in trained for parameter in model.encoder.vision.parameters())
    assert not any(id(parameter) in trained for parameter in model.encoder.text.parameters())
    model.train()
    assert not any(module.training for module in model.encoder.text.modules())
    assert all(module.training for module in model.encoder.vision.modules())


WITH_STATISTICS = "timm:test_resnet(image_size=32) + tiny-bert(layers=1, width=32, heads=2), random both, frozen vision"
LATER = {"stages": [{"at": 2, "thaw": ["vision"]}]}


def test_a_batch_in_parts_is_refused_where_a_later_stage_thaws_batch_statistics(
    tiny_recipe: Recipes, tmp_path: Path
) -> None:
    batch = {"size": 4, "accumulation": 2, "cached": True}
    recipe = tiny_recipe(start=WITH_STATISTICS, batch=batch, freezing=LATER)
    with pytest.raises(SpecError, match=r"batch\.cached runs the batch in parts, and 'encoder\.vision.*' estimates"):
        run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_to_look_at_each_stage_leaves_the_model_as_it_was() -> None:
    with torch.device("meta"):
        model = assemble(resolve(WITH_STATISTICS, ("itm",)))
    plan = stages_of(model, Freezing.model_validate(LATER), steps=9)
    for mode in (True, False):
        model.train(mode)
        before = [[part.training for part in model.modules()], [p.requires_grad for p in model.parameters()]]
        with pytest.raises(SpecError, match="estimates"):
            check_parts(model, plan)
        assert [[part.training for part in model.modules()], [p.requires_grad for p in model.parameters()]] == before
        check_parts(model, plan[:1])


# --- two processes --------------------------------------------------------------------------------------------------


def through_all_stages(recipe: dict[str, Any], batches: list[Any]) -> dict[str, torch.Tensor]:
    """Train six updates in three stages on the batches of this process; return the weights."""
    model = assemble(resolve(recipe["start"], {"itm": {}, "itc": {"width": 16}})).train()
    processes = Processes(validate_recipe(recipe), Path())
    plan = stages_of(model, SCHEDULE, steps=6)
    inner = TrainStep(model, {"itm": 1.0, "itc": 1.0})
    optimiser = make_optimiser(inner, SETTINGS)
    step = processes.wrap(inner)
    for update in range(6):
        if number_at(plan, update) != number_at(plan, max(0, update - 1)):
            begin_stage(inner, optimiser, plan, update, SETTINGS)
            step = processes.wrap(inner)
        processes.accelerator.backward(step(batches[update % 2]).loss)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def work(rank: int, folder: str, recipe: dict[str, Any], batches: list[list[Any]]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # asked for, and not used: the group is there
    assert Processes(validate_recipe(recipe), Path()).accelerator.num_processes == 2
    torch.save(through_all_stages(recipe, batches[rank]), Path(folder) / f"{rank}.pt")


def test_two_processes_pass_through_the_stages_as_one_does(
    tiny_recipe: Recipes, tiny_spec: Callable[..., str], tiny_model: Tiny, tiny_batch: Tiny, tmp_path: Path
) -> None:
    recipe, model = tiny_recipe(start=tiny_spec("frozen both")), tiny_model(())
    parts = [[tiny_batch(model, 2, first=first + 2 * rank) for first in (0, 4)] for rank in range(2)]
    in_two_processes(work, tmp_path, recipe, parts)
    alone = through_all_stages(recipe, [tiny_batch(model, 4, first=first) for first in (0, 4)])
    ours, theirs = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name, value in alone.items():
        assert torch.equal(ours[name], theirs[name]), name
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=1e-6)
