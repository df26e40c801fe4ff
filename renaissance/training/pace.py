"""How far a training is, by the budget that its recipe gives it, and what follows: learning rate, stage, end."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from renaissance.errors import SpecError
from renaissance.progress import Progress
from renaissance.recipe.training import Budget, Schedule
from renaissance.training.clock import Stopwatch
from renaissance.training.ledger import Ledger
from renaissance.training.optimiser import factor
from renaissance.training.stages import LONG

THOUSAND = 1000  # of a bar
LEAST = 1e-3  # of the full learning rate, in a warm-up whose updates are not counted


class Pace:
    """Counts updates, or where the budget is of FLOPs or seconds, what was spent of it.

    steps: updates of the training; LONG where what is spent decides. `share`: how much of the budget is spent.
    """

    def __init__(self, budget: Budget, schedule: Schedule, steps: int) -> None:
        self.budget, self.schedule, self.steps = budget, schedule, steps
        self.share = 0.0
        self._mean = 0.0  # share of the budget that an update takes

    def note(self, done: int, ledger: Ledger, clock: Stopwatch, accelerator: Accelerator) -> None:
        """Look at what was spent after so many updates; all processes see the same.

        Raises:
            SpecError: one update took more than all of a budget of seconds.
        """
        if self.budget.counted:
            self.share = done / self.steps
            return
        if done == 0:
            return
        if self.budget.flops is not None:
            whole, spent, updates = self.budget.flops, float(ledger.flops(accelerator)), done
        else:
            assert self.budget.seconds is not None
            whole, spent, updates = self.budget.seconds, _of_first(clock.charged(), accelerator), clock.updates
        self.share, self._mean = spent / whole, spent / whole / max(1, updates)
        if self.budget.seconds is not None and done == 2 and self.share > 1:  # the first is not charged
            raise SpecError(
                f"budget.seconds is {whole:g}, and one update alone took {spent:.4g}; give more, and another --out."
            )

    def over(self, done: int) -> bool:
        """Return whether the training ends after so many updates."""
        return done >= self.steps if self.budget.counted else self.share >= 1

    def factor(self, step: int) -> float:
        """Return the share of the full learning rate at an update, counted from 0.

        Where updates are not counted, what one takes is known after the first: a warm-up begins with `LEAST`.
        """
        decay = self.schedule.decay
        if self.budget.counted:
            return factor(step, self.steps, self.schedule.warmup(self.steps), decay)
        share = self.schedule.share
        if self.share < share:
            return min(1.0, max(LEAST, (self.share + self._mean) / share))
        return factor(round(self.share * LONG), LONG, round(share * LONG), decay)

    def time(self, step: int, unit: str) -> int:
        """Return when an update is, as stages count it whose times are of this unit."""
        return step if self.budget.counted or unit != "share" else int(min(self.share, 1.0) * LONG)

    def track(self, made: Generator[Any, None, None] | Iterator[Any], first: int, progress: Progress) -> Iterator[Any]:
        """Yield the batches as long as the training goes on, and show how far it is."""
        if self.budget.counted:
            yield from progress.track(made, self.steps - first, "Training")
            return
        show = progress.bar("Training (in 1/1000)")
        for item in made:
            yield item
            show(min(THOUSAND, int(THOUSAND * self.share)), THOUSAND)
            if self.share >= 1:
                return

    def shown(self, done: int) -> str:
        """Return how far a training is, in words."""
        return f"{done} of {self.steps}" if self.budget.counted else f"{done}, at {self.share:.0%} of its budget"


def _of_first(seconds: float, accelerator: Accelerator) -> float:
    """Return the seconds of the first process, in all of them."""
    return float(broadcast_object_list([seconds])[0]) if accelerator.num_processes > 1 else seconds
