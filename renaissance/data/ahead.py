"""Reading ahead: what a generator gives is made in a thread while the values before it are in use."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import Empty, Full, Queue
from typing import TypeVar

from renaissance.errors import RenaissanceError

Value = TypeVar("Value")

AHEAD = 2
POLL = 0.1  # seconds
LEAVE = 10.0  # seconds for the thread to end what it reads; one that hangs would keep the process for ever


class _Ended:
    """Follows the last value."""


def ahead(values: Iterator[Value], size: int = AHEAD) -> Generator[Value | RenaissanceError, None, None]:
    """Yield the values, up to `size` of them made before they are asked for; a user's error is yielded in its place.

    The thread starts with the first value, and ends when this is closed; where it hangs then, with the process.
    """
    made: Queue[Value | BaseException | _Ended] = Queue(size)
    stop = threading.Event()
    thread = threading.Thread(target=_fill, args=(values, made, stop), daemon=True)
    thread.start()
    try:
        while not isinstance(value := _next(made, thread), _Ended):
            if isinstance(value, BaseException) and not isinstance(value, RenaissanceError):
                raise value
            yield value
    finally:
        stop.set()
        thread.join(LEAVE)


def _fill(values: Iterator[Value], made: Queue[Value | BaseException | _Ended], stop: threading.Event) -> None:
    try:
        for value in values:
            if not _put(made, value, stop):
                return
    except BaseException as error:  # raised again where the values are used
        _put(made, error, stop)
    _put(made, _Ended(), stop)


def _put(
    made: Queue[Value | BaseException | _Ended], value: Value | BaseException | _Ended, stop: threading.Event
) -> bool:
    """Wait until there is room; return whether there was before the reading was stopped."""
    while not stop.is_set():
        try:
            made.put(value, timeout=POLL)
        except Full:
            continue
        return True
    return False


def _next(made: Queue[Value | BaseException | _Ended], thread: threading.Thread) -> Value | BaseException | _Ended:
    while True:
        try:
            return made.get(timeout=POLL)
        except Empty:
            assert thread.is_alive() or not made.empty(), "it tells that it ends"
