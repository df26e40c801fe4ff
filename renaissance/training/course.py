"""The course of a training, which a model and its blind twin both take: on which batches, how long, in which stages."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.assemble import Assembly
from renaissance.data.blind import Blindfold
from renaissance.data.collate import Collator
from renaissance.data.collate_items import ItemCollator, collator_of
from renaissance.data.load import samples_digest
from renaissance.data.loader import loader
from renaissance.data.records import DataSet
from renaissance.data.sampling import BatchPlan
from renaissance.errors import SpecError
from renaissance.features.frozen import Stores
from renaissance.progress import Progress
from renaissance.recipe import Recipe
from renaissance.training.ledger import Ledger
from renaissance.training.loop import Batches, Evaluate, Trained, train
from renaissance.training.pace import Pace
from renaissance.training.processes import Processes
from renaissance.training.signals import Signals
from renaissance.training.stages import LONG, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What decides how the models of a run train. tasks: those that train; items: whether they are on items.

    steps: updates of the training; LONG where FLOPs or seconds decide.
    """

    recipe: Recipe
    tasks: Collection[str]
    items: bool
    data: DataSet
    plan: BatchPlan
    steps: int
    stages: Sequence[Stage]
    stores: Stores
    signals: Signals
    progress: Progress

    def train(
        self,
        assembly: Assembly,
        *,
        folder: Path,
        run: str,
        processes: Processes,
        ledger: Ledger,
        start: Path | None,
        evaluate: Evaluate | None = None,
        blindfold: Blindfold | None = None,
    ) -> Trained:
        """Train a model, as `loop.train` does. blindfold: what takes the place of what it must not learn from."""
        return train(
            assembly,
            self.recipe,
            self._batches(self._collator(assembly, blindfold)),
            pace=Pace(self.recipe.budget, self.recipe.schedule, self.steps),
            ledger=ledger,
            samples=self.data.distinct,
            folder=folder,
            run=run,
            processes=processes,
            progress=self.progress,
            identity=self._identity(),
            signals=self.signals,
            stages=self.stages,
            start=start,
            evaluate=evaluate,
        )

    def _batches(self, collator: Collator | ItemCollator) -> Batches:
        return lambda first, count: loader(
            self.data.train, self.plan, collator, start_step=first, steps=count, workers=self.recipe.workers
        )

    def _collator(self, assembly: Assembly, blindfold: Blindfold | None) -> Collator | ItemCollator:
        encoder: Any = assembly.encoder
        how: dict[str, Any] = {
            "seed": self.recipe.seed,
            "augmentation": self.recipe.augmentation,
            "on_bad_sample": self.recipe.on_bad_sample,
            "stored_vision": self.stores.vision.views if self.stores.vision else None,
            "stored_text": self.stores.text.texts if self.stores.text else None,
            "blindfold": blindfold,
        }
        images, texts = None if self.stores.vision else encoder.vision.processor, encoder.text.processor
        if self.items:
            trained: dict[str, Any] = {name: assembly.tasks[name] for name in self.tasks}
            return collator_of(trained, images, texts, **how)
        return Collator(images, texts, **how)

    def _identity(self) -> str:
        """Return a digest of what decides which samples come when: the training samples in order, and the updates."""
        budget = self.recipe.budget
        length = self.steps if budget.counted else budget.model_dump_json(exclude_none=True)
        return hashlib.sha256(f"{length} {samples_digest(self.data.train)}".encode()).hexdigest()


def batch_plan(recipe: Recipe, count: int, processes: Processes) -> BatchPlan:
    """Return the batches of a training on `count` samples, as this process sees them.

    Raises:
        SpecError: a batch cannot be divided among the processes.
        DataError: there are fewer samples than one batch holds.
    """
    return BatchPlan(
        count=count,
        batch_size=recipe.batch.size,
        world_size=processes.accelerator.num_processes,
        rank=processes.accelerator.process_index,
        seed=recipe.seed,
        accumulation=recipe.batch.batches,
    )


def steps_of(recipe: Recipe, plan: BatchPlan) -> int:
    """Return the updates of a training; LONG where FLOPs or seconds decide.

    Raises:
        SpecError: the warm-up is as long as the training.
    """
    budget, schedule = recipe.budget, recipe.schedule
    if not budget.counted:
        return LONG
    of_samples = (budget.samples or 0) // recipe.batch.size
    steps = budget.steps or of_samples or (budget.epochs or 1) * plan.steps_per_epoch
    if schedule.warmup(steps) >= steps:
        warmup = schedule.warmup(steps)
        raise SpecError(f"The warm-up of {warmup} steps is not shorter than the training of {steps}; shorten it.")
    return steps
