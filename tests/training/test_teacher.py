"""Momentum teachers: how they follow, what is their own, and what a training keeps of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from renaissance.errors import CheckpointError, SpecError
from renaissance.recipe.freezing import Freezing
from renaissance.recipe.training import Optimiser
from renaissance.training.optimiser import make_optimiser
from renaissance.training.run import run
from renaissance.training.stages import begin_stage, stages_of
from renaissance.training.teacher import PREFIX, Kept, Momentum
from renaissance.training.train_step import TrainStep

TAUGHT: dict[str, dict[str, Any]] = {
    "mlm": {"distillation": 0.4, "distillation_ramp": 2, "at_least_one": True},
    "itm": {"distillation": 0.4, "distillation_ramp": 0, "negatives": "hard", "replaced": "both"},
    "itc": {"distillation": 0.4, "distillation_ramp": 2, "width": 16, "queue": 12},
    "mim": {"patch_size": 8, "target": "features"},
}
WEIGHTS = dict.fromkeys(TAUGHT, 1.0)


def trained(step: TrainStep, batch: Any, count: int) -> None:
    optimiser = make_optimiser(step, Optimiser(lr=1e-2))
    for _ in range(count):
        step(batch).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        step.momentum.update()


def test_the_teacher_is_the_moving_mean_of_the_weights(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model({"mlm": {"distillation": 0.5, "momentum": 0.9, "distillation_ramp": 0, "at_least_one": True}})
    step = TrainStep(model, {"mlm": 1.0})
    expected = {name: value.double().clone() for name, value in step.named_parameters()}
    (teacher,) = step.momentum.distinct
    for _ in range(3):
        trained(step, tiny_batch(model), 1)
        for name, value in step.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * value.detach().double()
    found = {name.removeprefix("encoder."): value for name, value in teacher.encoder.named_parameters()}
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected[f"encoder.{name}"], rtol=1e-5, atol=1e-6)
    head = teacher.tasks["mlm"].decoder.weight
    torch.testing.assert_close(head.double(), expected["tasks.mlm.decoder.weight"], rtol=1e-5, atol=1e-6)
    assert not torch.equal(head, model.tasks["mlm"].decoder.weight)


def test_a_teacher_of_momentum_one_never_moves(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model({"mim": {"patch_size": 8, "target": "features"}})
    step = TrainStep(model, {"mim": 1.0})
    (teacher,) = step.momentum.distinct
    before = {name: value.clone() for name, value in teacher.tensors().items()}
    trained(step, tiny_batch(model), 2)
    assert all(torch.equal(before[name], value) for name, value in teacher.tensors().items())


def test_tasks_of_one_momentum_share_a_teacher(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(TAUGHT)
    teachers = TrainStep(model, WEIGHTS).momentum.teachers
    assert teachers["mlm"] is teachers["itm"] is teachers["itc"]
    assert teachers["mim"] is not teachers["mlm"]


def test_no_teacher_is_made_where_none_is_asked_for(tiny_model: Callable[..., Any]) -> None:
    momentum = TrainStep(tiny_model(), {"mlm": 1.0, "itm": 1.0, "itc": 1.0}).momentum
    assert (dict(momentum.teachers), dict(momentum.queues), momentum.tensors()) == ({}, {}, {})


def test_the_teacher_is_in_no_optimiser_and_in_no_saved_model(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model(TAUGHT)
    names = set(model.state_dict())
    step = TrainStep(model, WEIGHTS)
    own = {id(tensor) for teacher in step.momentum.distinct for tensor in teacher.tensors().values()}
    listed = {id(p) for group in make_optimiser(step, Optimiser()).param_groups for p in group["params"]}
    trained(step, tiny_batch(model), 1)
    assert own
    assert not own & listed
    assert not own & {id(parameter) for parameter in step.parameters()}
    assert set(model.state_dict()) == names


def test_the_teacher_sees_no_dropout_and_gets_no_gradient(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model(TAUGHT, dropout=0.5)
    step = TrainStep(model, WEIGHTS)
    step.train()
    step(tiny_batch(model)).loss.backward()
    for teacher in step.momentum.distinct:
        assert not any(part.training for part in teacher.encoder.modules())
        assert all(p.grad is None and not p.requires_grad for p in teacher.encoder.parameters())


def test_what_is_frozen_is_shared_with_the_teacher(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model({"mlm": {"distillation": 0.4}}, "frozen vision")
    step = TrainStep(model, {"mlm": 1.0})
    (teacher,) = step.momentum.distinct
    shared = dict(model.encoder.vision.named_parameters())
    assert all(value is shared[name] for name, value in teacher.encoder.vision.named_parameters())
    assert not any(name.startswith("encoder.vision") and "weight" in name for name in teacher.tensors())
    trained(step, tiny_batch(model), 1)


def test_the_teacher_follows_what_a_later_stage_thaws(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model({"mlm": {"distillation": 0.4, "momentum": 0.5, "at_least_one": True}}, "frozen both")
    plan = stages_of(model, Freezing.model_validate({"stages": [{"at": 1, "thaw": ["text"]}]}), steps=9)
    step, batch = TrainStep(model, {"mlm": 1.0}, stages=plan), tiny_batch(model)
    (teacher,) = step.momentum.distinct
    trained(step, batch, 1)
    student = dict(model.encoder.text.named_parameters())
    before = {name: value.clone() for name, value in student.items()}
    assert all(torch.equal(value, student[name]) for name, value in teacher.encoder.text.named_parameters())
    begin_stage(step, make_optimiser(step, Optimiser()), plan, 1, Optimiser())
    trained(step, batch, 1)
    for name, value in teacher.encoder.text.named_parameters():
        torch.testing.assert_close(value, (before[name] + student[name]) / 2, rtol=1e-5, atol=1e-6)
    assert not all(torch.equal(before[name], value) for name, value in student.items())
    own = dict(model.encoder.vision.named_parameters())
    assert all(value is own[name] for name, value in teacher.encoder.vision.named_parameters())


def test_what_a_teacher_makes_of_a_batch_has_no_graph(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model({"mlm": {"distillation": 0.4, "distillation_ramp": 0, "at_least_one": True}})
    task, joints = model.tasks["mlm"], []
    own_loss, scale = task.loss, torch.ones((), requires_grad=True)

    def lesson(encoded: Any, batch: Any, published: Any) -> Any:
        made = task.pairs(encoded, batch, published)
        return replace(made, vision=replace(made.vision, tokens=made.vision.tokens * scale))

    def loss(encoded: Any, *args: Any) -> Any:
        joints.append(encoded.taught["mlm"].joint)
        return own_loss(encoded, *args)

    task.lesson, task.loss = lesson, loss
    TrainStep(model, {"mlm": 1.0})(tiny_batch(model)).loss.backward()
    assert [joint.text.tokens.requires_grad for joint in joints] == [False]
    assert scale.grad is None


def test_stored_features_reach_the_teacher_too(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model({"itc": {"width": 16, "distillation": 0.5, "distillation_ramp": 0}}, "frozen both").eval()
    batch = tiny_batch(model)
    stored = replace(
        batch,
        images=None,
        stored_vision=model.encoder.encode_vision(batch.images),
        stored_text=model.encoder.encode_text(batch.texts),
    )
    step = TrainStep(model, {"itc": 1.0})
    assert torch.equal(step(stored).loss, step(batch).loss)


def test_the_share_of_the_teacher_grows_from_nothing(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model({"mlm": {"distillation": 0.5, "distillation_ramp": 4, "at_least_one": True}})
    plain = tiny_model({"mlm": {"at_least_one": True}})
    batch = tiny_batch(model)
    step, labelled = TrainStep(model, {"mlm": 1.0}), TrainStep(plain, {"mlm": 1.0})
    found = []
    for updates in (0, 2, 4, 100):
        step.momentum.updates = updates
        found.append(float(step(batch).loss.detach()))
    assert found[0] == pytest.approx(float(labelled(batch).loss.detach()), rel=1e-6)
    assert found[1] - found[0] == pytest.approx((found[2] - found[0]) / 2, rel=1e-3)
    assert found[3] == found[2]


def test_gradient_checkpointing_leaves_the_teacher_as_it_is(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    from renaissance.models.recomputing import recompute

    found = []
    for again in (False, True):
        model = tiny_model(TAUGHT)
        if again:
            recompute(model.encoder)
        step = TrainStep(model, WEIGHTS)
        trained(step, tiny_batch(model), 2)
        found.append(step.momentum.tensors())
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


# --- checkpoints --------------------------------------------------------------------------------------------------


def recipe_of(tiny_recipe: Callable[..., Any], tiny_spec: Callable[..., str]) -> dict[str, Any]:
    found: dict[str, Any] = tiny_recipe(
        start=tiny_spec(dropout=0.1),
        tasks={name: {"options": options} for name, options in TAUGHT.items()},
        budget={"steps": 6},
        checkpoint_every=3,
        keep_checkpoints=2,
    )
    return found


def test_a_resumed_run_has_the_weights_teacher_and_queue_of_an_uninterrupted_one(
    tiny_recipe: Callable[..., Any], tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    recipe = recipe_of(tiny_recipe, tiny_spec)
    run(recipe, out=tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000006")
    shutil.rmtree(tmp_path / "cut" / "model")
    state = tmp_path / "cut" / "state.json"
    if state.exists():
        state.write_text(json.dumps({**json.loads(state.read_text()), "state": "running"}))
    run(recipe, out=tmp_path / "cut", resume=True)
    last = "checkpoints/step-00000006/model.safetensors"
    expected, found = load_file(tmp_path / "whole" / last), load_file(tmp_path / "cut" / last)
    assert expected.keys() == found.keys()
    assert any(name.startswith(f"{PREFIX}teacher.0.995/") for name in expected)
    assert expected[f"{PREFIX}queue.itc/images"].shape == (12, 16)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    saved = load_file(tmp_path / "cut" / "model" / "model.safetensors")
    assert not any(name.startswith(PREFIX) for name in saved)


def test_a_training_in_stages_keeps_the_teachers_own_copy_of_what_is_thawed(
    tiny_recipe: Callable[..., Any], tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    recipe = recipe_of(tiny_recipe, tiny_spec)
    stages = {"stages": [{"at": 2, "thaw": ["text[-1:]"]}]}
    del recipe["tasks"]["mim"]  # which a frozen vision tower would learn nothing from
    run({**recipe, "start": tiny_spec("frozen both"), "freezing": stages}, out=tmp_path / "run")
    kept = load_file(tmp_path / "run" / "checkpoints/step-00000006/model.safetensors")
    own = {name for name in kept if name.startswith(f"{PREFIX}teacher.0.995/encoder.text.") and "weight" in name}
    thawed = {name for name in own if ".blocks.1." in name}
    assert thawed == own != set()
    assert all(not torch.equal(kept[name], kept[name.partition("/")[2]]) for name in own)


def test_a_checkpoint_without_the_teacher_is_refused(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    from renaissance.training.checkpoint import load_checkpoint, save_checkpoint

    model = tiny_model({"mlm": {"distillation": 0.4}})
    step = TrainStep(model, {"mlm": 1.0})
    optimiser = make_optimiser(step, Optimiser())
    path = save_checkpoint(tmp_path, step=1, model=model, optimiser=optimiser, facts={}, keep=1)
    with pytest.raises(CheckpointError, match="is not of this model: 'momentum"):
        load_checkpoint(path, model=Kept(model, step.momentum), optimiser=optimiser)


def test_state_comes_back_as_it_was(tiny_model: Callable[..., Any], tiny_batch: Any, tmp_path: Path) -> None:
    from renaissance.training.checkpoint import load_checkpoint, save_checkpoint

    model = tiny_model(TAUGHT)
    step = TrainStep(model, WEIGHTS)
    trained(step, tiny_batch(model), 2)
    optimiser = make_optimiser(step, Optimiser())
    expected = {name: value.clone() for name, value in step.momentum.tensors().items()}
    kept = Kept(model, step.momentum)
    path = save_checkpoint(tmp_path, step=2, model=kept, optimiser=optimiser, facts={}, keep=1)
    other = tiny_model(TAUGHT, seed=1)
    again = Momentum(other.encoder, other.tasks)
    again.make_room(path, torch.device("cpu"))
    load_checkpoint(path, model=Kept(other, again), optimiser=make_optimiser(other, Optimiser()))
    found: dict[str, Tensor] = again.tensors()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_task_that_reads_an_untrained_one_is_refused(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model({"itm": {"negatives": "hard"}, "itc": {}})
    with pytest.raises(SpecError, match="'itm' reads what 'itc' computes in training; train 'itc' as well"):
        TrainStep(model, {"itm": 1.0})


def test_a_task_runs_after_the_one_that_it_reads(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model({"itm": {"negatives": "hard"}, "mlm": {}, "itc": {}})
    assert TrainStep(model, {"itm": 1.0, "mlm": 1.0, "itc": 1.0}).order == ["itc", "itm", "mlm"]
