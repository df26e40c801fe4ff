"""Runs on other machines are stopped by a file in the folder that all of them see, which nothing between can lose.

Ray interrupts a task by a Ctrl-C that it makes up in the task's process. Where that process ignores Ctrl-C, as whatever
a shell starts in the background does, where a library swallows it, or while it waits for a lock, nothing happens; and a
second one ends a training before it has written its checkpoint. So the process of a run looks for the file itself, and
interrupts itself once.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from renaissance.studies.folder import STOPS
from renaissance.training.signals import listener

LOOK_S = 0.5  # between two looks for the file
AGAIN = 10  # looks after which what has not heard an interruption is interrupted again


class StopFiles:
    """The files by which whoever does a study stops its runs on other machines: `stop`, and one of each run at work."""

    def __init__(self, place: str | Path) -> None:
        self.place = Path(place)

    @classmethod
    def made_in(cls, folder: str | Path) -> StopFiles:
        """Return those of a new place in a study's folder."""
        files = cls(Path(folder) / f"{STOPS}{secrets.token_hex(4)}")
        files.place.mkdir()
        return files

    @property
    def asked(self) -> bool:
        """Whether all runs are to stop."""
        return (self.place / "stop").exists()

    def ask(self) -> None:
        """Ask all runs to stop."""
        (self.place / "stop").touch()

    def begun(self, run: str) -> bool:
        """Return whether a process has begun a run: from then on it looks for the file."""
        return (self.place / f"begun-{run}").exists()

    def begin(self, run: str) -> bool:
        """Note that this process begins a run; return whether it may, as nobody has asked it to stop."""
        (self.place / f"begun-{run}").touch()
        return not self.asked  # in this order: who asks first and looks at what has begun then misses no run

    def remove(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self.place, ignore_errors=True)


@contextmanager
def obeying(files: StopFiles, *, every: float = LOOK_S) -> Iterator[None]:
    """Interrupt the run that goes on inside, as Ctrl-C does, when it is asked to stop; for the main thread.

    Nothing is interrupted that does not listen yet, such as an import. every: seconds between two looks.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which forgets one that waits to be let through
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it in all of its processes
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(files, ended, every), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGINT, before)


def _watch(files: StopFiles, ended: threading.Event, every: float) -> None:
    """Interrupt the main thread once it is asked for; again where that was not heard, as it was swallowed."""
    main, left = threading.main_thread().ident, 0
    assert main is not None, "it runs"
    while not ended.wait(every):
        run = listener()
        if run is None or run.caught is not None or not files.asked:
            continue
        if left == 0:
            signal.pthread_kill(main, signal.SIGINT)  # a real one: it wakes what waits for a lock or the system too
            left = AGAIN
        left -= 1
