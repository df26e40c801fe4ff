"""How a run measures its models: on the main process, while the others wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from renaissance.assemble import Assembly
from renaissance.data.records import DataSet
from renaissance.evaluation.beside import measure_beside
from renaissance.evaluation.choosing import Measure
from renaissance.evaluation.splits import SplitScores, evaluate_items, evaluate_split
from renaissance.features.frozen import Stores
from renaissance.progress import Progress
from renaissance.recipe import Recipe
from renaissance.registry import Registry
from renaissance.training.loop import Evaluate
from renaissance.training.processes import Processes
from renaissance.training.signals import Signals
from renaissance.training.start import measured_tasks


@dataclass(frozen=True, slots=True)
class Measurer:
    """Measures models as a recipe says; all processes call its methods, and the main one gets the scores.

    items: whether the tasks are on items. phase: counts the time of what is done inside for a phase.
    """

    recipe: Recipe
    items: bool
    stores: Stores
    processes: Processes
    signals: Signals
    progress: Progress
    phase: Callable[[str], AbstractContextManager[None]]

    def measure(
        self, assembly: Assembly, splits: Mapping[str, Sequence[Any]], *, blind: bool = False
    ) -> list[SplitScores]:
        """Return the scores on these splits; none where a signal that a training waits with was heard.

        blind: measure on images and texts of other samples too.
        """
        found: list[SplitScores] | None = []
        with self.phase("evaluation"), self.processes.whole(assembly) as model:
            if self.processes.first and measured_tasks(assembly.plan):
                found = self.signals.unless_heard(partial(self._judged, model, splits, blind=blind))
            self.processes.wait()
        return found or []

    def beside(self, assembly: Assembly, registry: Registry) -> list[SplitScores]:
        """Return the scores on the recipe's further data."""
        found: list[SplitScores] = []
        with self.phase("evaluation"), self.processes.whole(assembly) as model:
            if self.processes.first:
                found = measure_beside(self.recipe, model, registry, self.progress)
            self.processes.wait()
        return found

    def validation(self, assembly: Assembly, data: DataSet) -> Evaluate | None:
        """Return what measures the samples set aside in the training: figures, on the main process."""
        if not self.recipe.evaluation.every:
            return None

        def validate(step: int) -> dict[str, float]:
            measured = self.measure(assembly, {"validation": data.validation})
            rows = [row for scores in measured for row in scores.rows()]
            return {f"validation/{row['task']}/{row['name']}": row["value"] for row in rows}

        return validate

    def _judged(self, model: Assembly, splits: Mapping[str, Sequence[Any]], *, blind: bool) -> list[SplitScores]:
        able = model.plan.tasks
        tasks = {name: Measure(able[name].entry, model.tasks[name]) for name in measured_tasks(model.plan)}
        how: dict[str, Any] = {"stores": self.stores, "progress": self.progress, "blind": blind}
        if self.items:
            return [evaluate_items(model, name, items, tasks, **how) for name, items in splits.items()]
        size = self.recipe.evaluation.batch_size
        return [evaluate_split(model, name, records, tasks, batch_size=size, **how) for name, records in splits.items()]
