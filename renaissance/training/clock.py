"""Wall seconds by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Wall seconds by phase; time inside another phase counts for the inner one alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = 0.0

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count what is done inside for `phase`."""
        outer, self._inner = self._inner, 0.0
        began = time.perf_counter()
        try:
            yield
        finally:
            whole = time.perf_counter() - began
            self.seconds[phase] = self.seconds.get(phase, 0.0) + whole - self._inner
            self._inner = outer + whole


class Stopwatch:
    """Wall seconds of training, `before` of them in earlier parts of a resumed run, and `charged` of those to a budget.

    updates: those that were charged, all parts together.

    What is charged begins after the first update of a part: that one starts loader processes, counts operations and
    takes memory, in seconds that say nothing of what an update takes.
    """

    def __init__(self, before: float = 0.0, charged: float = 0.0, updates: int = 0) -> None:
        self.updates = updates
        self._before, self._began = before, time.perf_counter()
        self._charged, self._last = charged, 0.0
        self._free: float | None = None  # when the first update of this part ended

    def since_start(self) -> float:
        """Seconds of this part."""
        return time.perf_counter() - self._began

    def seconds(self) -> float:
        """Seconds of all parts."""
        return self._before + self.since_start()

    def charge(self) -> None:
        """Charge an update that has just ended, unless it is the first of this part."""
        self._last = self.since_start()
        if self._free is None:
            self._free = self._last
        else:
            self.updates += 1

    def charged(self) -> float:
        """Seconds of all parts without their first updates."""
        return self._charged + (0.0 if self._free is None else self._last - self._free)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what is done inside."""
        stopped = time.perf_counter()
        try:
            yield
        finally:
            self._began += time.perf_counter() - stopped
