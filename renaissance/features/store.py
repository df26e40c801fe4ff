"""The store of frozen features: what a whole frozen tower gives, computed once, in one memory-mapped file.

Letters in shapes: B samples read, N longest of them in tokens, D width.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor, nn

from renaissance.api import Backbone, Features, TextInput, VisionInput
from renaissance.durable import sync_folder
from renaissance.errors import OutputError
from renaissance.features.layout import DTYPES, Layout, Section, damaged, read_layout
from renaissance.features.writer import StoreWriter
from renaissance.toolkit.canonical import encode_canonical
from renaissance.toolkit.devices import moved

# numpy knows no bfloat16: its bits travel as integers
NUMPY_DTYPES: Mapping[str, str] = {"U8": "|u1", "I64": "<i8", "F32": "<f4", "F16": "<f2", "BF16": "<i2"}
SAMPLES_A_STEP = 64
ABANDONED_AFTER_S = 3600
HASH_BYTES = 1 << 24

Load = Callable[[Sequence[int]], VisionInput | TextInput]
Progress = Callable[[int, int], None]


class FeatureStore:
    """Features of a frozen tower by content digest; open one with `FeatureStore.open`. Pickling it costs a path."""

    def __init__(self, path: Path, layout: Layout, sections: Mapping[str, Section]) -> None:
        self.path = path
        self.layout = layout
        self.sections = sections
        self.offsets = np.array(self._map("offsets"))

    @classmethod
    def open(cls, path: Path) -> FeatureStore:
        """Open a store; its header, its size and its index are checked, its numbers by `verify`.

        Raises:
            FeatureStoreError: it is missing, truncated or damaged.
        """
        store = cls(path, *read_layout(path))
        for name in ("digests", "offsets"):
            store._check(name)
        rising = bool((np.diff(store.offsets) >= 0).all())
        if store.offsets[0] != 0 or store.offsets[-1] != store.layout.tokens or not rising:
            raise damaged(path, "its index contradicts its header")
        return store

    def __reduce__(self) -> tuple[Callable[[Path], FeatureStore], tuple[Path]]:
        """Pickle the path alone, so that loader workers map the file themselves."""
        return FeatureStore.open, (self.path,)

    def __len__(self) -> int:
        return self.layout.samples

    @property
    def key(self) -> str:
        """The content key."""
        return self.layout.key

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """The row of each sample by its content digest (hexadecimal)."""
        return {row.tobytes().hex(): index for index, row in enumerate(self._map("digests"))}

    def read(self, rows: Sequence[int]) -> Features:
        """Return a copy of these rows: tokens [B, N, D], zero where padded, mask [B, N], pooled [B, D] or None."""
        starts, stops = self.offsets[list(rows)], self.offsets[[row + 1 for row in rows]]
        longest = int((stops - starts).max())
        mapped = self._tokens
        tokens = np.zeros((len(rows), longest, self.layout.width), mapped.dtype)
        for target, start, stop in zip(tokens, starts, stops, strict=True):
            target[: stop - start] = mapped[start:stop]
        mask = np.arange(longest) < (stops - starts)[:, None]
        pooled = self._tensor(self._pooled[list(rows)]) if self.layout.pooled else None
        return Features(self._tensor(tokens), torch.from_numpy(mask), pooled)

    def verify(self) -> None:
        """Read the whole file and compare it with its checksums.

        Raises:
            FeatureStoreError: a number is not what was written.
        """
        for name in self.sections:
            self._check(name)

    @cached_property
    def _tokens(self) -> np.ndarray[Any, Any]:
        return self._map("tokens")

    @cached_property
    def _pooled(self) -> np.ndarray[Any, Any]:
        return self._map("pooled")

    def _map(self, name: str) -> np.ndarray[Any, Any]:
        section = self.sections[name]
        if section.size == 0:
            return np.zeros(section.shape, NUMPY_DTYPES[section.dtype])
        return np.memmap(self.path, NUMPY_DTYPES[section.dtype], "r", section.start, section.shape)

    def _tensor(self, values: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(values).view(DTYPES[self.layout.dtype])

    def _check(self, name: str) -> None:
        section = self.sections[name]
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            file.seek(section.start)
            for start in range(0, section.size, HASH_BYTES):
                digest.update(file.read(min(HASH_BYTES, section.size - start)))
        if digest.hexdigest() != self.layout.sha256.get(name):
            raise damaged(self.path, f"the checksum of its {name} is wrong")


def build_or_open(
    folder: Path,
    tower: Backbone,
    samples: Sequence[str],
    load: Load,
    *,
    key: str,
    about: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
    samples_a_step: int = SAMPLES_A_STEP,
) -> FeatureStore:
    """Open the store of this key and verify its numbers, or run the frozen tower over the samples and write it.

    samples: content digests; equal ones are computed once. load: gives the tower's input for some positions in
    `samples`. about: what the key was made of, kept in the file. progress: told how many of all samples are done.

    A build writes under a temporary name and renames at the end: one that is cut off leaves nothing that opens, and of
    two at the same time both end with a whole file.

    Raises:
        FeatureStoreError: the store is there but damaged, or cannot hold what this tower gives.
        OutputError: the folder cannot be written, or the disk is too small.
    """
    path = folder / f"{key}.safetensors"
    was_there = path.exists()
    if not was_there:
        first = {digest: index for index, digest in reversed(list(enumerate(samples)))}
        distinct = sorted(first.values())
        with _new_file(path) as file:
            writer = StoreWriter(file, key, [samples[index] for index in distinct], about)
            _write(writer, tower, distinct, load, progress, samples_a_step, folder)
    store = FeatureStore.open(path)
    if store.key != key:
        raise damaged(path, "it was renamed: its key is another")
    if was_there:
        store.verify()
    return store


def _write(
    writer: StoreWriter,
    tower: Backbone,
    positions: Sequence[int],
    load: Load,
    progress: Progress,
    samples_a_step: int,
    folder: Path,
) -> None:
    module = cast(nn.Module, tower)
    assert not any(part.training for part in module.modules()), "a frozen tower is in eval mode"
    device = next(module.parameters()).device
    for start in range(0, len(positions), samples_a_step):
        chosen = positions[start : start + samples_a_step]
        features = encode_canonical(tower, moved(load(chosen), device))
        if start == 0:
            _check_space(folder, writer.plan(features, len(positions)))
        writer.add(features)
        progress(start + len(chosen), len(positions))
    writer.finish()


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that becomes `path` if all goes well, and is deleted if not."""
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        try:
            with partial.open("xb") as file:
                yield file
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OutputError(
                f"The disk of {path.parent} is full. Free some space, or choose another folder."
            ) from None
        reason = error.strerror or error
        raise OutputError(f"{path.parent} cannot be written ({reason}). Choose a folder that can.") from None


def _remove_abandoned(path: Path) -> None:
    """Delete what killed builds of the same store left; a live one writes every few seconds."""
    for partial in path.parent.glob(f".{path.stem}.*.partial"):
        if time.time() - partial.stat().st_mtime > ABANDONED_AFTER_S:
            partial.unlink(missing_ok=True)


def _check_space(folder: Path, layout: Layout) -> None:
    needed, free = layout.file_bytes(), shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"The features of {layout.samples:,} samples need about {needed / 1e9:.1f} GB, and {folder} has "
            f"{free / 1e9:.1f} GB free. Free some space, choose another folder, or train without the store."
        )
