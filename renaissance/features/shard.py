"""One shard of a store: some samples' features in a file, opened as a memory map. It is written whole, once.

Letters in shapes: S samples, M tokens of all of them, W width of a row, D width of the tower.
"""

from __future__ import annotations

import errno
import hashlib
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from renaissance.durable import sync_folder
from renaissance.errors import OutputError
from renaissance.features.layout import INDEX, Layout, Section, damaged, read_layout
from renaissance.features.writer import check

# numpy knows no bfloat16: its bits travel as integers
NUMPY_DTYPES: Mapping[str, str] = {"U8": "|u1", "I64": "<i8", "F32": "<f4", "F16": "<f2", "BF16": "<i2"}
SUFFIX = ".safetensors"

Array = NDArray[Any]


class Shard:
    """Features of some samples; open one with `Shard.open`."""

    def __init__(self, path: Path, layout: Layout, sections: Mapping[str, Section]) -> None:
        self.path = path
        self.layout = layout
        self.sections = sections
        index = {name: self._indexed(name) for name in INDEX}
        self.digests, self.offsets = index["digests"], index["offsets"]
        self.checks = index["checks"].view("<u8")

    @classmethod
    def open(cls, path: Path, key: str) -> Shard:
        """Open a shard of the store of this key: its header, its size and its index are checked, its numbers are not.

        Raises:
            FeatureStoreError: it is missing, truncated or damaged, or of another store.
        """
        shard = cls(path, *read_layout(path))
        rising = bool((np.diff(shard.offsets) >= 0).all())
        if shard.offsets[0] != 0 or shard.offsets[-1] != shard.layout.tokens or not rising:
            raise damaged(path, "its index contradicts its header")
        if shard.layout.key != key:
            raise damaged(path, "it holds what another tower gave: it was moved here or renamed")
        return shard

    @cached_property
    def tokens(self) -> Array:
        """The tokens of all samples [M, W], mapped."""
        return self._mapped("tokens")

    @cached_property
    def pooled(self) -> Array:
        """The pooled vectors [S, D], mapped."""
        return self._mapped("pooled")

    def check(self, row: int) -> None:
        """Compare what is read of one sample with its checksum.

        Raises:
            FeatureStoreError: it is not what was written.
        """
        tokens = self.tokens[self.offsets[row] : self.offsets[row + 1]]
        pooled = self.pooled[row] if self.layout.pooled else b""
        if check(np.ascontiguousarray(tokens), pooled) != int(self.checks[row]):
            raise damaged(self.path, f"sample {row} is not what was written: its checksum is wrong")

    def verify(self) -> None:
        """Read the whole shard and compare it with its checksums.

        Raises:
            FeatureStoreError: a number is not what was written.
        """
        for row in range(self.layout.samples):
            self.check(row)

    def _indexed(self, name: str) -> Array:
        """Return a tensor of the index, read and checked."""
        section = self.sections[name]
        with self.path.open("rb") as file:
            file.seek(section.start)
            data = file.read(section.size)
        if hashlib.sha256(data).hexdigest() != self.layout.sha256.get(name):
            raise damaged(self.path, f"the checksum of its {name} is wrong")
        return np.frombuffer(data, NUMPY_DTYPES[section.dtype]).reshape(section.shape)

    def _mapped(self, name: str) -> Array:
        section = self.sections[name]
        if section.size == 0:
            return np.zeros(section.shape, NUMPY_DTYPES[section.dtype])
        mapped = np.memmap(self.path, NUMPY_DTYPES[section.dtype], "r", section.start, section.shape)
        return mapped.view(np.ndarray)  # slices of the class itself cost microseconds


@contextmanager
def new_shard(folder: Path) -> Iterator[BinaryIO]:
    """Give a file that becomes a shard of this folder if all goes well, and is deleted if not.

    Raises:
        OutputError: it cannot be written, or the disk is full.
    """
    name = uuid.uuid4().hex
    partial, path = folder / f".{name}.partial", folder / f"{name}{SUFFIX}"
    try:
        try:
            with partial.open("xb") as file:
                yield file
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OutputError(
                f"The disk of {folder} is full. What was finished is kept: free some space and run again, or choose "
                "another store.folder."
            ) from None
        raise unwritable(folder, error) from None


def unwritable(folder: Path, error: OSError) -> OutputError:
    """Return the error for a folder that cannot be written."""
    return OutputError(f"{folder} cannot be written ({error.strerror or error}). Choose a folder that can.")


def shard_files(folder: Path) -> list[Path]:
    """Return the shards of a store, in a fixed order."""
    return sorted(folder.glob(f"*{SUFFIX}"))
