"""The training loop: one readable pass over the updates, on Hugging Face Accelerate."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from renaissance.api import Batch
from renaissance.assemble import Assembly
from renaissance.durable import write_atomically
from renaissance.errors import CheckpointError, NonFiniteError
from renaissance.progress import Progress
from renaissance.recipe import Recipe
from renaissance.toolkit.devices import moved
from renaissance.toolkit.random import stream_seed
from renaissance.training.checkpoint import load_checkpoint, save_checkpoint
from renaissance.training.optimiser import factor, make_optimiser, set_learning_rate
from renaissance.training.teacher import Kept
from renaissance.training.train_step import StepOutput, TrainStep

LOG_EVERY = 10

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
    log = _Log(folder, accelerator, recipe.batch.size, first)
    clock = _Stopwatch(float(state.get("seconds", 0.0)))
    model.train()
    for step, parts in progress.track(batches(first, steps - first), steps - first, "Training"):
        share = factor(step, steps, warmup, recipe.schedule.decay)
        set_learning_rate(optimiser, share)
        output = _update(model, optimiser, parts, step=step, recipe=recipe, accelerator=accelerator)
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


class _Stopwatch:
    """Wall seconds of training, `before` of them in earlier parts of a resumed run."""

    def __init__(self, before: float) -> None:
        self._before, self._began = before, time.perf_counter()

    def since_start(self) -> float:
        """Seconds of this part."""
        return time.perf_counter() - self._began

    def seconds(self) -> float:
        """Seconds of all parts."""
        return self._before + self.since_start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what is done inside."""
        stopped = time.perf_counter()
        try:
            yield
        finally:
            self._began += time.perf_counter() - stopped


def _update(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    parts: list[Batch],
    *,
    step: int,
    recipe: Recipe,
    accelerator: Accelerator,
) -> StepOutput:
    """Run one update; each of its micro-batches weighs the same."""
    outputs: list[StepOutput] = []
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        for number, part in enumerate(parts):
            # dropout is a function of (seed, step, part, rank), so that a resumed run needs no state of a generator
            torch.manual_seed(stream_seed(recipe.seed, step, number, accelerator.process_index))
            last = number + 1 == len(parts)
            with nullcontext() if last else accelerator.no_sync(model):
                with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                    output = cast(StepOutput, model(moved(part, accelerator.device)))
                _check_losses(output, step)
                accelerator.backward(output.loss / len(parts))
            outputs.append(output)
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    limit = recipe.optimiser.clip_norm
    norm = torch.nn.utils.clip_grad_norm_(trained, float("inf") if limit is None else limit)
    if not torch.isfinite(norm):
        raise NonFiniteError(_diverged(f"the gradient's norm is {float(norm)}", step))
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return _mean(outputs)


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


class _Log:
    """metrics.jsonl, the trackers, and the text beside the bar."""

    def __init__(self, folder: Path, accelerator: Accelerator, batch_size: int, first: int) -> None:
        self._path, self._accelerator, self._batch_size = folder / "metrics.jsonl", accelerator, batch_size
        self._steps = 0
        if accelerator.is_main_process:
            _forget_later_steps(self._path, first)

    def write(
        self, step: int, output: StepOutput, lr: float, seconds: float, progress: Progress, *, last: bool
    ) -> None:
        self._steps += 1
        if step % LOG_EVERY and not last:
            return
        losses = {f"loss/{name}": round(float(loss), 6) for name, loss in output.losses.items()}
        metrics = {name: round(float(value), 6) for name, value in output.metrics.items()}
        rate = self._steps * self._batch_size / seconds
        figures = {**losses, **metrics, "lr": lr, "samples_per_second": round(rate, 3)}
        progress.note(" ".join(f"{name.removeprefix('loss/')} {value:.3f}" for name, value in losses.items()))
        self._accelerator.log(figures, step=step)
        if self._accelerator.is_main_process:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **figures}) + "\n")


def _forget_later_steps(path: Path, first: int) -> None:
    """Drop what an interrupted run noted after the checkpoint from which it goes on."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    write_atomically(path, "".join(f"{line}\n" for line in lines if _step_of(line) <= first))


def _step_of(line: str) -> float:
    """Return the update that a line of metrics.jsonl is of; one that a kill cut off is of none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
