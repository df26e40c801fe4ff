"""The training loop: one readable pass over the updates, on Hugging Face Accelerate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from renaissance.api import Batch
from renaissance.assemble import Assembly
from renaissance.errors import CheckpointError
from renaissance.progress import Progress
from renaissance.recipe import Recipe
from renaissance.training.checkpoint import load_checkpoint, save_checkpoint
from renaissance.training.clock import Stopwatch
from renaissance.training.log import Log
from renaissance.training.optimiser import factor, make_optimiser, set_learning_rate
from renaissance.training.teacher import Kept
from renaissance.training.train_step import TrainStep
from renaissance.training.update import update

Batches = Callable[[int, int], Iterator[tuple[int, list[Batch]]]]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training did, over all parts of it if it was resumed: updates, wall seconds, samples left out."""

    steps: int
    seconds: float
    skipped: tuple[str, ...]


def train(
    assembly: Assembly,
    recipe: Recipe,
    batches: Batches,
    *,
    steps: int,
    folder: Path,
    accelerator: Accelerator,
    progress: Progress,
    identity: str,
    start: Path | None = None,
    evaluate: Callable[[int], None] | None = None,
) -> Trained:
    """Train the tasks of a recipe for `steps` updates, from the checkpoint `start` if there is one.

    batches(first, count) gives this process's micro-batches of each update. `evaluate(step)` is called after every
    `recipe.evaluation.every` updates, and its time is not counted. identity: a digest of the samples and their order,
    which a checkpoint must share.

    Raises:
        NonFiniteError: a loss or gradient is NaN or infinite; the weights are those of the update before.
        CheckpointError: the checkpoint is of other samples.
    """
    weights = {name: task.weight for name, task in recipe.tasks.items()}
    step_module = TrainStep(assembly, weights)
    optimiser = make_optimiser(step_module, recipe.optimiser)
    momentum = step_module.momentum
    kept = Kept(assembly, momentum) if momentum.teachers or momentum.queues else assembly
    if start is not None:
        momentum.make_room(start, accelerator.device)
    state = {} if start is None else load_checkpoint(start, model=kept, optimiser=optimiser)
    if state.get("identity", identity) != identity:
        raise CheckpointError(f"The data are not those of '{folder}' any more; restore them, or start a new run.")
    first = momentum.updates = int(state.get("step", 0))
    skipped = dict.fromkeys(state.get("skipped", ()))
    warmup = recipe.schedule.warmup(steps)
    model = accelerator.prepare(step_module)
    log = Log(folder, accelerator, recipe.batch.size, first)
    clock = Stopwatch(float(state.get("seconds", 0.0)))
    model.train()
    for step, parts in progress.track(batches(first, steps - first), steps - first, "Training"):
        share = factor(step, steps, warmup, recipe.schedule.decay)
        set_learning_rate(optimiser, share)
        output = update(model, optimiser, parts, step=step, recipe=recipe, accelerator=accelerator)
        momentum.update()
        skipped |= dict.fromkeys(line for part in parts for line in part.skipped)
        done = step + 1
        log.write(done, output, recipe.optimiser.lr * share, clock.since_start(), progress, last=done == steps)
        # before the checkpoint: a kill in between is resumed from an older one, and measures again
        if evaluate is not None and recipe.evaluation.every and done % recipe.evaluation.every == 0 and done < steps:
            with clock.paused():
                evaluate(done)
        if done == steps or done % recipe.checkpoint_every == 0:
            skipped |= dict.fromkeys(_of_all_processes(skipped))
            facts = {"skipped": list(skipped), "seconds": clock.seconds(), "identity": identity}
            _checkpoint(folder, done, kept, optimiser, facts, recipe, accelerator)
    assembly.eval()
    return Trained(max(first, steps), clock.seconds(), _of_all_processes(skipped))


def _of_all_processes(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(gather_object(list(lines))))


def _checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    facts: Mapping[str, Any],
    recipe: Recipe,
    accelerator: Accelerator,
) -> None:
    if accelerator.is_main_process:
        save_checkpoint(
            folder / "checkpoints",
            step=step,
            model=model,
            optimiser=optimiser,
            facts=facts,
            keep=recipe.keep_checkpoints,
        )
    accelerator.wait_for_everyone()
