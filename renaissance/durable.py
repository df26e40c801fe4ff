"""Files that last: brought to the disk, replaced whole or not at all, and known by their SHA-256. Imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from renaissance.errors import OutputError


def sync_file(path: Path) -> None:
    """Bring the content of a file to the disk."""
    _sync(path)


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk, where the file system can."""
    if os.name != "nt":  # Windows opens no folders
        _sync(path)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, meets the old content or the new, and nothing between.

    Raises:
        OutputError: it cannot be written; the message says why.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        sync_file(partial)
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written ({error.strerror or error}). Choose another folder.") from error


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; at the end it takes the place of `target`, on disk for good.

    Whatever goes wrong, no part of it is left, and what was there stays.

    Raises:
        OutputError: it cannot be written.
    """
    mark = secrets.token_hex(4)
    staging = target.parent / f".{target.name}.{mark}.tmp"
    retired = target.parent / f".{target.name}.{mark}.old"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        yield staging
        for path in (*staging.rglob("*"), staging):
            (sync_folder if path.is_dir() else sync_file)(path)
        if target.is_dir():
            target.rename(retired)
        staging.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise OutputError(f"{target} cannot be written ({error.strerror or error}). Choose another folder.") from error
    finally:
        if retired.exists() and not target.exists():
            retired.rename(target)
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
