"""What a training keeps of itself, so that it can go on: checkpoints, averaged weights, the best update."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from renaissance.assemble import Assembly
from renaissance.errors import CheckpointError
from renaissance.recipe import Recipe
from renaissance.training.averaging import Average
from renaissance.training.best import Best
from renaissance.training.checkpoint import (
    AVERAGE,
    checkpoint_at,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from renaissance.training.processes import Processes
from renaissance.training.teacher import Kept, Momentum


class Keeper:
    """The checkpoints of one training, in `folder`/checkpoints; `run` is the id of its run."""

    def __init__(
        self,
        assembly: Assembly,
        momentum: Momentum,
        optimiser: torch.optim.Optimizer,
        *,
        folder: Path,
        run: str,
        recipe: Recipe,
        processes: Processes,
    ) -> None:
        self._model = Kept(assembly, momentum) if momentum.teachers or momentum.queues else assembly
        self._momentum, self._optimiser = momentum, optimiser
        self._folder, self._run, self._recipe, self._processes = folder / "checkpoints", run, recipe, processes
        self._average = None if recipe.ema is None else Average(assembly, recipe.ema.decay)

    def restore(self, start: Path | None, identity: str) -> dict[str, Any]:
        """Put everything back as it was at a checkpoint; return its step and facts, or {} where there is none.

        Raises:
            CheckpointError: it is of another model, or of other samples; or the best checkpoint, which is to be saved
                in the end, is not whole any more.
        """
        if start is None:
            return {}
        self._momentum.make_room(start, self._processes.accelerator.device)
        state = load_checkpoint(start, model=self._model, optimiser=self._optimiser, average=self._average)
        if state["identity"] != identity:
            raise CheckpointError(f"The data are not those of '{start}' any more; restore them, or start a new run.")
        if self._recipe.save_best and state["best"] is not None:
            checkpoint_at(self._folder, state["best"]["step"], self._run)
        self._momentum.updates = state["step"]
        return state

    def begin_stage(self) -> None:
        """Average what trains from here on, too."""
        if self._average is not None:
            self._average.follow()

    def update(self, step: int) -> None:
        """Let teachers and averages follow update `step`, counted from 1."""
        self._momentum.update()
        if self._average is not None:
            self._average.update(step)

    def write(self, step: int, facts: Mapping[str, Any], best: Best) -> None:
        """Write a checkpoint on the main process, while the others wait.

        Raises:
            OutputError: it cannot be written.
        """
        save_checkpoint(
            self._folder,
            step=step,
            model=self._model,
            optimiser=self._optimiser,
            facts={**facts, "best": best.facts()},
            keep=self._recipe.keep_checkpoints,
            run=self._run,
            average=self._average,
            besides=best.steps,
            main=self._processes.first,
        )
        self._processes.wait()

    def averaged(self) -> AbstractContextManager[None]:
        """Give the model its averaged weights, if the recipe asks for them, while what is inside runs."""
        return nullcontext() if self._average is None else self._average.in_place()

    def finish(self, best: Best) -> None:
        """Give the model, for good, the weights that are measured and saved: the last or the best, as averaged.

        Raises:
            CheckpointError: the best is to be saved, and its checkpoint is not whole any more.
        """
        if self._recipe.save_best and best.step is not None:
            path = checkpoint_at(self._folder, best.step, self._run)
            self._momentum.make_room(path, self._processes.accelerator.device)
            load_weights(path, self._model)
            if self._average is not None:
                self._average.load(load_file(path / AVERAGE))
        if self._average is not None:
            self._average.apply()
