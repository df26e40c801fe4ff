"""What loader processes are at, so that the error about one that dies names it and the samples that it had in hand.

What this process reads itself is watched too (`patiently`), and never ended.
"""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.context import BaseContext
from types import FrameType
from typing import Any, TypeVar

from torch.utils.data import get_worker_info

from renaissance.errors import LoaderError

Value = TypeVar("Value")

SHOWN = 4
# after a pipe broke, until the system tells that the process at its other end is gone
PATIENCE = 10.0  # seconds
# for a micro-batch that is waited for, and so much again for each of its samples: slower is nothing but what hangs
LONGEST_WAIT = 120.0  # seconds
LONGEST_OF_SAMPLE = 1.0  # seconds
LOOK = 5.0  # seconds between two looks at whether a process died or hangs
TIMED_OUT = "DataLoader timed out"  # how torch's error begins that tells of `LOOK`


class Watch:
    """A table in shared memory: of each loader process its id, and the number of the micro-batch that it is at."""

    def __init__(self, context: BaseContext, workers: int) -> None:
        self._table: Any = context.Array("q", [-1] * (2 * workers), lock=False)

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

    def telling(
        self, prepared: Iterator[Any], samples: Callable[[int], str], first: int, size: int
    ) -> Generator[Any, None, None]:
        """Yield what loader processes prepare; for one that dies or hangs, the error that says which, on which samples.

        prepared: raises torch's error of a wait that was too long every `LOOK` seconds, and can be asked again. first:
        the number of the first micro-batch. size: samples of each.
        Errors are yielded, and not raised: the traceback of the loader's own error would keep the processes alive.
        """
        children = multiprocessing.active_children()
        longest = _longest(size)
        awaited, since = first, time.monotonic()
        while True:
            try:
                batch = next(prepared)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError, MemoryError) as error:
                if not str(error).startswith(TIMED_OUT):
                    batch = self._death(children, samples) or _unsent(error, samples(awaited))
                elif time.monotonic() - since < longest:
                    continue
                else:
                    batch = self._hang(children, awaited, samples(awaited), longest)
            yield batch
            awaited, since = awaited + 1, time.monotonic()

    def _death(self, children: Sequence[Any], samples: Callable[[int], str]) -> LoaderError | None:
        dead = self._dead(children)
        if dead is None:
            return None
        worker, how = dead
        number = self._table[2 * worker + 1]
        when = f"while it prepared {samples(number)}" if number >= 0 else "before it prepared anything"
        return LoaderError(f"{self._name(worker)} {how} {when}. If memory ran out, use fewer 'workers'; then --resume.")

    def _hang(self, children: Sequence[Any], awaited: int, what: str, seconds: float) -> LoaderError:
        """End all loader processes; return the error of the one that is at the awaited micro-batch."""
        worker = next((worker for worker, number in enumerate(self._table[1::2]) if number == awaited), None)
        for child in self._own(children).values():
            child.kill()  # they would wait for each other, and what hangs does not end when it is asked to
            child.join(PATIENCE)
        who = "No loader process" if worker is None else self._name(worker)
        fault = "has begun" if worker is None else "hangs: it has not prepared"
        return LoaderError(
            f"{who} {fault} {what} in {seconds:.0f} seconds. See whether the disk or the network that they are read "
            "from answers; then --resume."
        )

    def _name(self, worker: int) -> str:
        return f"Loader process {worker + 1} of {len(self._table) // 2}"

    def _own(self, children: Sequence[Any]) -> dict[int, Any]:
        """Return the loader processes by their ids."""
        return {child.pid: child for child in children if child.pid in self._table[::2]}

    def _dead(self, children: Sequence[Any]) -> tuple[int, str] | None:
        """Return which loader process has ended, and how, in words."""
        own = self._own(children)
        told = multiprocessing.connection.wait([child.sentinel for child in own.values()], PATIENCE)
        for worker, process in enumerate(self._table[::2]):
            if process in own and own[process].sentinel in told:
                own[process].join(PATIENCE)  # its end of the pipe closes a moment before it can be asked how it ended
                code = own[process].exitcode
                return worker, f"was ended by {signal.Signals(-code).name}" if code < 0 else f"left with code {code}"
        return None


def patiently(
    values: Iterator[Value], samples: Callable[[int], str], first: int, size: int
) -> Generator[Value, None, None]:
    """Yield what this process prepares or reads itself; warn of what takes as long as what hangs, and wait on.

    first: the number of the first micro-batch. size: samples of each. What waits for the system cannot be interrupted
    from within, and it may be somebody in a debugger who waits, so nothing is ended.
    """
    longest = _longest(size)
    for number in itertools.count(first):
        telling = threading.Timer(longest, _tell, (samples, number, longest))
        telling.daemon = True
        telling.start()
        try:
            value = next(values)
        except StopIteration:
            return
        finally:
            telling.cancel()
        yield value


def _tell(samples: Callable[[int], str], number: int, seconds: float) -> None:
    warnings.warn(
        f"Reading {samples(number)} takes longer than {seconds:.0f} seconds. See whether the disk or the network that "
        "they are read from answers. The training waits on; Ctrl-C twice ends it, and --resume continues it.",
        RuntimeWarning,
        stacklevel=2,
    )


def _unsent(error: Exception, what: str) -> LoaderError:
    """Return the error for what loader processes that are still there could not send."""
    return LoaderError(
        f"A loader process could not send {what} ({type(error).__name__}: {error}). If memory ran out, use fewer "
        "'workers'; then --resume."
    )


def _longest(size: int) -> float:
    """Return the seconds after which a micro-batch of so many samples is said to hang."""
    return LONGEST_WAIT + LONGEST_OF_SAMPLE * size


def named(ids: Sequence[str]) -> str:
    """Name samples: the first few, and how many there are."""
    more = f" and {len(ids) - SHOWN:,} more" if len(ids) > SHOWN else ""
    return f"samples {', '.join(map(repr, ids[:SHOWN]))}{more}"


def _die_next_time(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
