"""The best checkpoint of a training, by one score of its evaluations on the validation samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from accelerate.utils import broadcast_object_list

from renaissance.errors import SpecError
from renaissance.recipe import Recipe
from renaissance.spec import did_you_mean, shown


class Best:
    """Which update had the highest score so far; of equal ones the first."""

    def __init__(self, score: str | None, before: Mapping[str, Any] | None) -> None:
        self._score = score
        self.step: int | None = None
        self.value = 0.0
        if before is not None:
            self.step, self.value = int(before["step"]), float(before["value"])

    @property
    def steps(self) -> tuple[int, ...]:
        """The update whose checkpoint is kept, if there is one."""
        return () if self.step is None else (self.step,)

    def facts(self) -> dict[str, Any] | None:
        """Return what a checkpoint holds of it."""
        return None if self.step is None else {"score": self._score, "step": self.step, "value": self.value}

    def look(self, step: int, figures: Mapping[str, float]) -> None:
        """Compare the figures of an evaluation, which the main process has, in all processes.

        Raises:
            SpecError: the score is not among them.
        """
        if self._score is None:
            return
        (known,) = broadcast_object_list([dict(figures)])
        if self._score not in known:
            task, _, metric = self._score.removeprefix("validation/").partition("/")
            own = [name.split("/", 2)[2] for name in known if name.split("/")[1] == task]
            raise SpecError(
                f"keep_best: '{shown(task)}' has no score '{shown(metric)}' on the validation samples; "
                f"it has: {', '.join(own) or 'none'}.{did_you_mean(metric, own)}"
            )
        if self.step is None or known[self._score] > self.value:
            self.step, self.value = step, known[self._score]


def check_best(recipe: Recipe, measured: Iterable[str]) -> None:
    """Check that the score by which the best checkpoint is kept is of a task that is measured.

    Raises:
        SpecError: it is not.
    """
    if recipe.keep_best is None:
        return
    task, known = recipe.keep_best.split("/", 2)[1], list(measured)
    if task not in known:
        raise SpecError(
            f"keep_best: '{shown(task)}' is not measured; measured are: {', '.join(known) or 'none'}."
            f"{did_you_mean(task, known)}"
        )
