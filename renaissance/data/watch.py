"""What loader processes are at, so that the error about one that dies names it and the samples that it had in hand."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.context import BaseContext
from types import FrameType
from typing import Any

from torch.utils.data import get_worker_info

from renaissance.errors import LoaderError

SHOWN = 4
# after a pipe broke, until the system tells that the process at its other end is gone
PATIENCE = 10.0  # seconds


class Watch:
    """A table in shared memory: of each loader process its id, and the number of the micro-batch that it is at."""

    def __init__(self, context: BaseContext, workers: int) -> None:
        self._table: Any = context.Array("q", 2 * workers, lock=False)

    def begin(self, worker: int) -> None:
        """Enter this loader process, and make it outlive the signals that a training waits with.

        Ctrl-C in a terminal, and a scheduler's SIGTERM, reach every process of a group: the training ends its update
        first, and then closes these. A second SIGTERM, which is how a stuck one is ended, works.
        """
        self._table[2 * worker] = os.getpid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _die_next_time)

    def note(self, number: int) -> None:
        """Note in a loader process which micro-batch it is at."""
        worker = get_worker_info()
        assert worker is not None, "only loader processes are watched"
        self._table[2 * worker.id + 1] = number

    def telling(self, prepared: Iterator[Any], samples: Callable[[int], str]) -> Generator[Any, None, None]:
        """Yield what loader processes prepare; for one that dies, the error that says which, and on which samples.

        Yielded, and not raised: the traceback of the loader's own error would keep the other processes alive.
        """
        children = multiprocessing.active_children()
        while True:
            try:
                batch = next(prepared)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError):
                batch = self._death(children, samples)
                if batch is None:
                    raise
            yield batch

    def _death(self, children: Sequence[Any], samples: Callable[[int], str]) -> LoaderError | None:
        dead = self._dead(children)
        if dead is None:
            return None
        worker, how = dead
        return LoaderError(
            f"Loader process {worker + 1} of {len(self._table) // 2} {how} while it prepared "
            f"{samples(self._table[2 * worker + 1])}. If memory ran out, use fewer 'workers'; then --resume."
        )

    def _dead(self, children: Sequence[Any]) -> tuple[int, str] | None:
        """Return which loader process has ended, and how, in words."""
        own = {child.pid: child for child in children if child.pid in self._table[::2]}
        if not multiprocessing.connection.wait([child.sentinel for child in own.values()], PATIENCE):
            return None
        for worker, process in enumerate(self._table[::2]):
            if process in own and not own[process].is_alive():
                code = own[process].exitcode
                return worker, f"was ended by {signal.Signals(-code).name}" if code < 0 else f"left with code {code}"
        return None


def named(ids: Sequence[str]) -> str:
    """Name samples: the first few, and how many there are."""
    more = f" and {len(ids) - SHOWN:,} more" if len(ids) > SHOWN else ""
    return f"samples {', '.join(map(repr, ids[:SHOWN]))}{more}"


def _die_next_time(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
