"""Ctrl-C and SIGTERM: a training stops at its next checkpoint, and anything else at once.

The handlers set a flag, and the training looks at it after each update: an exception in the middle of one would leave
weights of no step, and processes that wait for each other. An evaluation between two updates changes no weight: it is
given up, and the checkpoint of the update before it is written.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import torch
from accelerate import Accelerator

Result = TypeVar("Result")
_HEARD = (signal.SIGINT, signal.SIGTERM)


class _GivenUpError(BaseException):
    """Ends what a signal gives up; no handler of errors takes it, and it is seen nowhere else."""


class Signals:
    """What a run has heard. `held`: a training goes on, so that a first signal waits for its checkpoint."""

    def __init__(self) -> None:
        self.caught: int | None = None
        self._held = False
        self._gives_up = False

    def hear(self, number: int, frame: FrameType | None = None) -> None:
        """Handle a signal: note the first one while it is held, and leave at any other."""
        if self._held and self.caught is None:
            self.caught = number
            if self._gives_up:
                self._gives_up = False
                raise _GivenUpError
        else:
            _leave(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let a first signal wait while what is inside runs; one that nobody asked for is heard at the end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self.caught is not None:
            _leave(self.caught)

    def unless_heard(self, call: Callable[[], Result]) -> Result | None:
        """Return what `call` gives; None where, within `held`, a first signal came before, or gives it up.

        What is given up is cut off anywhere: it must leave no state that anybody needs.
        """
        try:
            self._gives_up = True
            result = None if self.caught is not None else call()
            self._gives_up = False  # in here: a signal that comes before it is still one that gives up
        except _GivenUpError:
            return None
        finally:
            self._gives_up = False
        return result

    def asked(self, accelerator: Accelerator) -> str | None:
        """Return the name of the signal that one of the processes has heard, the same in all of them."""
        heard = self.caught or 0
        if accelerator.num_processes > 1:
            told = torch.tensor([heard], device=accelerator.device)
            heard = int(accelerator.gather(told).max())
        return signal.Signals(heard).name if heard else None


@contextmanager
def listening() -> Iterator[Signals]:
    """Hear Ctrl-C and SIGTERM while what is inside runs; only the main thread can, and what is ignored stays so."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    # a shell starts background jobs with SIGINT ignored; handlers set outside of Python show as None
    before = {number: signal.getsignal(number) for number in _HEARD}
    changed = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in changed:
        signal.signal(number, signals.hear)
    try:
        yield signals
    finally:
        for number, handler in changed.items():
            signal.signal(number, handler)


def listener() -> Signals | None:
    """Return what hears Ctrl-C in this process now, whichever thread asks; None: no run does."""
    owner = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    return owner if isinstance(owner, Signals) else None


def _leave(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
