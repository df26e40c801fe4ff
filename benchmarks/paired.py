"""Time several ways of doing one thing, in turns, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of paired figures, and the least and the greatest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """Return the spread of at least one figure."""
        return cls(median(figures), min(figures), max(figures))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, slots=True)
class Timings:
    """CPU seconds by name; entry i of every name was measured in round i."""

    seconds: Mapping[str, Sequence[float]]

    def spread(self, name: str) -> Spread:
        """Return the CPU seconds of one name."""
        return Spread.of(self.seconds[name])

    def ratio(self, name: str, to: str) -> Spread:
        """Return how many times as long one took as another, round by round."""
        pairs = zip(self.seconds[name], self.seconds[to], strict=True)
        return Spread.of([first / second for first, second in pairs])


def take_turns(actions: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: int = 1) -> Timings:
    """Run every action once a round, beginning with another one each round; return the CPU seconds that they took.

    CPU seconds of this process and of the children that it waited for: other work on the machine, which changes what
    a clock on the wall says, is not counted. The first `warm_up` rounds are run and not kept.
    """
    names = list(actions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warm_up, rounds):
        for name in _rotated(names, turn):
            taken = _timed(actions[name])
            if turn >= 0:
                seconds[name].append(taken)
    return Timings(seconds)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with padded columns."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _rotated(names: Sequence[str], turn: int) -> Sequence[str]:
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def _timed(action: Callable[[], object]) -> float:
    gc.collect()
    before = _cpu_seconds()
    action()
    return _cpu_seconds() - before


def _cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
