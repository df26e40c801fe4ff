"""One process writes a run: a lock that the system lets go of when its holder ends, however it ends."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from renaissance.errors import OutputError

LOCK = ".lock"
_TAKEN = (errno.EACCES, errno.EAGAIN)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process from writing the run in `folder` while what is inside runs.

    The file says who holds it (process, and boot of its machine) for the message alone: one whose holder has ended, in
    this boot or another, is taken over. It is never deleted, as a process could then lock one that is no longer there.

    Raises:
        OutputError: another process holds it, or it cannot be written.
    """
    path = folder / LOCK
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written ({error.strerror}); choose another --out.") from None
    with file:
        _take(file, folder)
        file.truncate(0)
        file.write(json.dumps({"process": os.getpid(), "boot": _boot()}) + "\n")
        file.flush()
        yield
        file.truncate(0)


def _take(file: TextIO, folder: Path) -> None:
    try:
        _lock(file)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise OutputError(
                f"'{folder}' cannot be locked ({error.strerror}); choose an --out on a file system with locks."
            ) from None
        raise OutputError(
            f"{_holder(file)} is writing the run in '{folder}'; wait until it ends, or choose another --out."
        ) from None


def _lock(file: TextIO) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(2**20)  # beyond what is written, which others may read
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        # not `flock`: loader processes would inherit that, and outlive a holder that is killed by some seconds
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _holder(file: TextIO) -> str:
    """Return who holds the lock, in words."""
    try:
        file.seek(0)
        told = json.loads(file.read())
        where = "" if told["boot"] == _boot() else " of another machine"
        return f"Process {int(told['process'])}{where}"
    except (OSError, ValueError, LookupError, TypeError):
        return "Another process"


def _boot() -> str:
    """Return what tells this boot of this machine from others; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
