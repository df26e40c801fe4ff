"""The training loop: one readable pass over the updates, on Hugging Face Accelerate."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from renaissance.api import Batch
from renaissance.assemble import Assembly
from renaissance.errors import StoppedError
from renaissance.progress import Progress
from renaissance.recipe import Recipe
from renaissance.training.best import Best
from renaissance.training.clock import Stopwatch
from renaissance.training.keeping import Keeper
from renaissance.training.ledger import Ledger
from renaissance.training.log import LOG_EVERY, Log
from renaissance.training.optimiser import make_optimiser, set_learning_rate
from renaissance.training.pace import Pace
from renaissance.training.processes import Processes
from renaissance.training.samples import within_budget
from renaissance.training.signals import Signals
from renaissance.training.stages import Stage, begin_stage, number_at
from renaissance.training.train_step import TrainStep
from renaissance.training.update import update

Batches = Callable[[int, int], Generator[tuple[int, list[Batch]], None, None]]
Evaluate = Callable[[int], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training did, over all parts of it if it was resumed: updates, wall seconds, samples left out.

    best: the update with the best score, and that score, where the recipe keeps it. unreached: the stages that never
    began, as the budget of FLOPs or seconds ended before.
    """

    steps: int
    seconds: float
    skipped: tuple[str, ...]
    best: Mapping[str, Any] | None = None
    unreached: tuple[str, ...] = ()


def train(
    assembly: Assembly,
    recipe: Recipe,
    batches: Batches,
    *,
    pace: Pace,
    ledger: Ledger,
    samples: int,
    folder: Path,
    run: str,
    processes: Processes,
    progress: Progress,
    identity: str,
    signals: Signals,
    stages: Sequence[Stage],
    start: Path | None = None,
    evaluate: Evaluate | None = None,
) -> Trained:
    """Train the tasks of a recipe as long as `pace` says, from the checkpoint `start` if there is one.

    batches(first, count) gives this process's micro-batches of each update. `ledger` counts what they take.
    `evaluate(step)` is called after every `recipe.evaluation.every` updates; neither its time nor that of checkpoints
    is counted. samples: how many there are to train on. identity: a digest of them and their order, which a checkpoint
    must share. run: the id of the run, which it must share too.

    Raises:
        NonFiniteError: a loss or gradient is NaN or infinite; the weights are those of the update before.
        CheckpointError: the checkpoint is of other samples.
        DataError: more samples are left out than `recipe.skip_budget` allows: by this process after any update, by all
            of them together at a checkpoint.
        StoppedError: a signal was heard; a checkpoint of the last update is written.
    """
    accelerator = processes.accelerator
    weights = {name: task.weight for name, task in recipe.tasks.items()}
    step_module = TrainStep(assembly, weights, recipe.batch.parts, stages)
    step_module.meter = ledger
    processes.divide(step_module, assembly)
    optimiser = make_optimiser(step_module, recipe.optimiser)
    keeper = Keeper(
        assembly, step_module.momentum, optimiser, folder=folder, run=run, recipe=recipe, processes=processes
    )
    state = keeper.restore(start, identity)
    first = done = int(state.get("step", 0))
    ledger.restore(state.get("ledger", {}))
    # an older checkpoint does not say how many updates were charged: all but the first, if it was not resumed
    charged = int(state.get("charged_updates", max(0, first - 1)))
    clock = Stopwatch(float(state.get("seconds", 0.0)), float(state.get("charged", 0.0)), charged)
    pace.note(first, ledger, clock, accelerator)
    time = pace.time(first, recipe.freezing.unit)
    begin_stage(step_module, optimiser, stages, time, recipe.optimiser)
    stage = number_at(stages, time)
    keeper.begin_stage()
    skipped = dict.fromkeys(state.get("skipped", ()))
    best = Best(recipe.keep_best if evaluate else None, state.get("best"))
    model = processes.wrap(step_module)
    log = Log(folder, accelerator, recipe.batch.size, first)

    def measure(done: int) -> str | None:
        """Measure after an update; return the signal that was heard in the meantime: there are no figures then."""
        assert evaluate is not None, "`is_due` asks"
        with clock.paused(), keeper.averaged():
            figures = evaluate(done)
        stopped = signals.asked(accelerator)
        if stopped is None:
            log.note(done, figures)
            best.look(done, figures)
        return stopped

    def is_due(done: int) -> bool:
        every = recipe.evaluation.every
        over = pace.over(done)
        last = over and recipe.keep_best is None  # which is measured in the end in any case
        return evaluate is not None and every is not None and (done % every == 0 or over) and not last

    model.train()
    with signals.held(), closing(batches(first, 0 if pace.over(first) else pace.steps - first)) as made:
        if state.get("unmeasured") and (stopped := measure(first)) is not None:
            raise _stopped(stopped, pace.shown(first))
        for step, parts in pace.track(ledger.phases.waiting(made), first, progress):
            time = pace.time(step, recipe.freezing.unit)
            if number_at(stages, time) != stage:
                begin_stage(step_module, optimiser, stages, time, recipe.optimiser)
                stage = number_at(stages, time)
                keeper.begin_stage()
                ledger.begin_stage()
                model = processes.wrap(step_module).train()
            share = pace.factor(step)
            set_learning_rate(optimiser, share)
            output = update(
                model, optimiser, parts, step=step, recipe=recipe, accelerator=accelerator, phases=ledger.phases
            )
            done = step + 1
            ledger.update(parts)
            clock.charge()
            pace.note(done, ledger, clock, accelerator)
            over = pace.over(done)
            keeper.update(done)
            skipped |= dict.fromkeys(line for part in parts for line in part.skipped)
            within_budget(recipe, skipped, samples, "samples to train on")
            log.write(done, output, recipe.optimiser.lr * share, clock.since_start(), progress, last=over)
            if done % LOG_EVERY == 0:
                ledger.settle()
            stopped = signals.asked(accelerator)
            due = is_due(done)
            # before the checkpoint: a kill in between is resumed from an older one, and measures again
            if due and stopped is None:
                stopped = measure(done)
            if stopped or over or done % recipe.checkpoint_every == 0 or best.step == done:
                skipped |= dict.fromkeys(_of_all_processes(skipped))
                within_budget(recipe, skipped, samples, "samples to train on")
                facts: dict[str, Any] = {"skipped": list(skipped), "identity": identity}
                facts |= {"stage": stage, "ledger": ledger.totals(accelerator)}
                facts |= {"seconds": clock.seconds(), "charged": clock.charged(), "charged_updates": clock.updates}
                with clock.paused(), ledger.phases("checkpoints"):
                    keeper.write(done, {**facts, "unmeasured": bool(stopped) and due}, best)
            if stopped:
                raise _stopped(stopped, pace.shown(done))
    keeper.finish(best)
    assembly.eval()
    unreached = tuple(after.label for after in stages[stage + 1 :])
    if unreached:
        progress.say(f"The budget ended at update {done}, before the stage after {unreached[0]}: it never began.")
    return Trained(done, clock.seconds(), _of_all_processes(skipped), best.facts(), unreached)


def _stopped(by: str, shown: str) -> StoppedError:
    return StoppedError(f"Stopped by {by} after update {shown}; its checkpoint is written. Continue with --resume.")


def _of_all_processes(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(gather_object(list(lines))))
