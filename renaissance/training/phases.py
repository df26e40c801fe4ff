"""Wall and CPU seconds by phase of a training, on a GPU by its own clock."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

REST = "rest"
Item = TypeVar("Item")


class Phases:
    """Seconds by phase; each moment counts for the innermost one, and outside of all for the rest.

    On a GPU work is only asked for: its wall seconds are those between events that the GPU itself passes, and are known
    after `settle`. CPU seconds are those of this process in all its threads.
    """

    def __init__(self, device: torch.device) -> None:
        self.wall: defaultdict[str, float] = defaultdict(float)
        self.cpu: defaultdict[str, float] = defaultdict(float)
        self._phase = REST
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._on_gpu = device.type == "cuda"
        self._passed = [(REST, self._event())] if self._on_gpu else []

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count what is done inside for `phase`."""
        outer = self._phase
        self._enter(phase)
        try:
            yield
        finally:
            self._enter(outer)

    def waiting(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items; the time in which they are waited for is that of the data."""
        iterator = iter(items)
        nothing = object()
        while True:
            with self("data"):
                item: Any = next(iterator, nothing)
            if item is nothing:
                return
            yield item

    def settle(self) -> None:
        """Add what is counted so far to the figures; a GPU is waited for."""
        self._enter(self._phase)
        if self._on_gpu:
            self._passed[-1][1].synchronize()
            for (phase, begun), (_, ended) in zip(self._passed, self._passed[1:], strict=False):
                self.wall[phase] += begun.elapsed_time(ended) / 1000
            del self._passed[:-1]

    def _enter(self, phase: str) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.cpu[self._phase] += cpu - self._cpu
        if self._on_gpu:
            self._passed.append((phase, self._event()))
        else:
            self.wall[self._phase] += wall - self._wall
        self._phase, self._wall, self._cpu = phase, wall, cpu

    def _event(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's own is not annotated
        event.record()
        return event
