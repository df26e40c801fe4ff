"""How runs are started, and what a recipe says of processes; what processes do together is in test_scaling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from renaissance.errors import SpecError
from renaissance.recipe import validate_recipe
from renaissance.recipe.distributed import Distributed
from renaissance.training.processes import check_launch
from renaissance.training.run import run
from renaissance.training.sharded import Shell, shard
from renaissance.training.train_step import TrainStep


def test_a_launcher_that_starts_one_process_of_several_is_refused() -> None:
    # what `accelerate launch --cpu --num_processes 2` sets
    asked = {"ACCELERATE_USE_CPU": "True", "ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1"}
    with pytest.raises(SpecError, match=r"'accelerate launch' was asked for several .* Start runs with 'torchrun"):
        check_launch(asked)
    with pytest.raises(SpecError, match="WORLD_SIZE asks for 4 processes, and RANK does not say"):
        check_launch({"WORLD_SIZE": "4"})


def test_one_process_and_those_of_torchrun_are_let_through() -> None:
    check_launch({})
    check_launch({"ACCELERATE_MIXED_PRECISION": "no"})
    check_launch({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"})


def test_one_process_cannot_divide_a_model(tiny_recipe: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="'strategy: fsdp' divides a model among processes, and this is one"):
        run(tiny_recipe(distributed={"strategy": "fsdp"}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("keys", [{"offload": True}, {"shard": "grad"}])
def test_what_is_of_fsdp_is_refused_without_it(
    keys: dict[str, Any], tiny_recipe: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(SpecError, match="'shard' and 'offload' are of the strategy fsdp"):
        validate_recipe(tiny_recipe(distributed=keys))


def test_a_momentum_teacher_is_not_divided(tiny_model: Callable[..., Any]) -> None:
    step = TrainStep(tiny_model({"itc": {"queue": 8}}), {"itc": 1.0})
    with pytest.raises(SpecError, match="'itc' keeps a momentum teacher"):
        shard(step, Distributed(strategy="fsdp"), bf16=False)


def test_a_shell_has_the_weights_of_another_model_while_they_are_asked_for(
    tiny_model: Callable[..., Any], tiny_batch: Callable[..., Any]
) -> None:
    model = tiny_model()
    shell = Shell(model)
    with torch.no_grad():
        model.encoder.fusion.layers[0].cross.attention.query.weight.add_(1.0)
    filled = shell.fill(model, keep=True)
    assert filled is not model
    assert all(torch.equal(value, filled.state_dict()[name]) for name, value in model.state_dict().items())
    batch = tiny_batch(model)
    assert torch.equal(filled.encoder.encode_text(batch.texts).tokens, model.encoder.encode_text(batch.texts).tokens)
    shell.empty()
    assert sum(parameter.numel() for parameter in filled.parameters()) == 0
