"""Who is at work in a store: one builder at a time, any number of readers, and nobody while it is deleted.

Locks of the operating system: a process that is killed holds none. Where there are none (Windows), builders may compute
the same samples twice, which does no harm, and a store that was used within the hour is never deleted.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from renaissance.features.shard import unwritable

fcntl: Any = None if os.name == "nt" else importlib.import_module("fcntl")

BUILDING, IN_USE = ".building", ".in-use"
RECENT_S = 3600


@contextmanager
def building(folder: Path) -> Iterator[None]:
    """Hold the store as its only builder; wait for another one. What killed builders left is removed.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        descriptor = _held(folder)
    except OSError as error:
        raise unwritable(folder, error) from None
    try:
        _remove_unfinished(folder)
        yield
    finally:
        os.close(descriptor)


def use(folder: Path) -> int | None:
    """Tell that a store is read from now on, until the descriptor that comes back is closed; None: that cannot be told.

    The time is noted as that of its last use.
    """
    try:
        descriptor = os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # a folder that others share with us to read only is none that we could delete
        return None
    os.utime(folder / IN_USE)
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def last_use(folder: Path) -> float:
    """Return when a store was last opened or built, in seconds since 1970."""
    times = [path.stat().st_mtime for path in (folder / IN_USE, folder / BUILDING) if path.exists()]
    return max(times, default=folder.stat().st_mtime)


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Say whether nobody reads or builds a store; if so, nobody begins to until this is left."""
    if fcntl is None:
        yield time.time() - last_use(folder) > RECENT_S
        return
    held: list[int] = []
    moment = last_use(folder)
    try:
        yield all(_taken(folder / name, held, moment) for name in (BUILDING, IN_USE))
    finally:
        for descriptor in held:
            os.close(descriptor)


def _taken(path: Path, held: list[int], moment: float) -> bool:
    new = not path.exists()
    held.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
    if new:  # to look is not to use
        os.utime(path, (moment, moment))
    try:
        fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _held(folder: Path) -> int:
    """Return the descriptor of the builder's lock, of a folder that was not deleted while it was waited for."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / BUILDING, os.O_RDWR | os.O_CREAT, 0o666)
        os.utime(folder / BUILDING)
        if fcntl is None:
            return descriptor
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.fstat(descriptor), (folder / BUILDING).stat()):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)


def _remove_unfinished(folder: Path) -> None:
    """Delete what killed builders left; without locks only what nobody wrote to for an hour."""
    for partial in folder.glob(".*.partial"):
        if fcntl is not None or time.time() - partial.stat().st_mtime > RECENT_S:
            partial.unlink(missing_ok=True)
