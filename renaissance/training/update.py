"""One update: the micro-batches' gradients, the check that they are finite, the optimiser's step."""

from __future__ import annotations

from contextlib import nullcontext
from typing import cast

import torch
from accelerate import Accelerator
from torch import nn

from renaissance.api import Batch
from renaissance.errors import NonFiniteError
from renaissance.recipe import Recipe
from renaissance.toolkit.devices import moved
from renaissance.toolkit.random import stream_seed
from renaissance.training.phases import Phases
from renaissance.training.processes import no_sync
from renaissance.training.sharded import clip_gradients
from renaissance.training.train_step import StepOutput


def update(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    parts: list[Batch],
    *,
    step: int,
    recipe: Recipe,
    accelerator: Accelerator,
    phases: Phases,
) -> StepOutput:
    """Run one update; each of its micro-batches weighs the same."""
    outputs: list[StepOutput] = []
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        for number, part in enumerate(parts):
            # dropout is a function of (seed, step, part, rank), so that a resumed run needs no state of a generator
            torch.manual_seed(stream_seed(recipe.seed, step, number, accelerator.process_index))
            last = number + 1 == len(parts)
            with nullcontext() if last else no_sync(model):
                with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                    output = cast(StepOutput, model(moved(part, accelerator.device)))
                _check_losses(output, step)
                with phases("backward"):
                    accelerator.backward(output.loss / len(parts))
            outputs.append(output)
    with phases("optimiser"):
        _move(optimiser, recipe, step)
    return _mean(outputs)


def _move(optimiser: torch.optim.Optimizer, recipe: Recipe, step: int) -> None:
    """Clip the gradients, check them, and let the optimiser use them."""
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    limit = recipe.optimiser.clip_norm
    norm = clip_gradients(trained, float("inf") if limit is None else limit)
    if not torch.isfinite(norm):
        raise NonFiniteError(_diverged(f"the gradient's norm is {float(norm)}", step))
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def _check_losses(output: StepOutput, step: int) -> None:
    for name, loss in output.losses.items():
        if not torch.isfinite(loss):
            raise NonFiniteError(_diverged(f"the loss of '{name}' is {float(loss)}", step))


def _diverged(what: str, step: int) -> str:
    return (
        f"At update {step + 1} {what}; the weights were not updated. "
        "Lower the learning rate, or look at the data of this batch."
    )


def _mean(outputs: list[StepOutput]) -> StepOutput:
    first = outputs[0]
    if len(outputs) == 1:
        return first
    losses = {name: torch.stack([output.losses[name] for output in outputs]).mean() for name in first.losses}
    metrics = {name: torch.stack([output.metrics[name] for output in outputs]).mean() for name in first.metrics}
    return StepOutput(torch.stack([output.loss.detach() for output in outputs]).mean(), losses, metrics)
