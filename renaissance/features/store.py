"""A store of frozen features: a folder of shards, each written whole, whose samples are found by their content.

```
<key>/                   the key is that of the tower, its preprocessing and its kernels (`renaissance.features.keys`)
  <name>.safetensors     a shard (`renaissance.features.layout`)
```
A sample that is not there is computed and added in a new shard; what a killed build had finished stays.

Letters in shapes: B samples read, N longest of them in tokens, D width, W width of a row.
"""

from __future__ import annotations

import os
import shutil
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renaissance.api import Features, TextInput, VisionInput
from renaissance.errors import OutputError
from renaissance.features.layout import DTYPES, Cost, damaged
from renaissance.features.locks import building, use
from renaissance.features.shard import NUMPY_DTYPES, Array, Shard, new_shard, shard_files
from renaissance.features.writer import ShardWriter

SAMPLES_A_STEP = 64
SHARD_BYTES = 128 * 2**20  # what a kill may cost

Encode = Callable[[VisionInput | TextInput], Features]
Load = Callable[[Sequence[int]], VisionInput | TextInput]
Progress = Callable[[int, int], None]
Flops = Callable[[], int]


class FeatureStore:
    """Features of a frozen tower by content digest; open one with `FeatureStore.open`. Pickling it costs a path."""

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self.folder = folder
        self.shards = tuple(shards)
        sizes = [shard.layout.samples for shard in self.shards]
        self._shard = np.repeat(np.arange(len(sizes)), sizes)
        self._own = np.concatenate([np.arange(size) for size in (*sizes, 0)])
        self._starts = np.concatenate([shard.offsets[:-1] for shard in self.shards] or [np.zeros(0, np.int64)])
        self._stops = np.concatenate([shard.offsets[1:] for shard in self.shards] or [np.zeros(0, np.int64)])
        self._checked = np.zeros(len(self), dtype=bool)
        held = use(folder) if self.shards else None
        if held is not None:
            weakref.finalize(self, os.close, held)

    @classmethod
    def open(cls, folder: Path) -> FeatureStore:
        """Open a store, of which there may be nothing yet: headers, sizes and indices of its shards are checked.

        Numbers are checked when they are first read, each sample's once in a process.

        Raises:
            FeatureStoreError: a shard is truncated or damaged, or of another store.
        """
        shards = [Shard.open(path, folder.name) for path in shard_files(folder)]
        for shard in shards[1:]:
            if _kind(shard) != _kind(shards[0]):
                raise damaged(shard.path, "its numbers are of another kind than those of the other shards")
        return cls(folder, shards)

    def __reduce__(self) -> tuple[Callable[[Path], FeatureStore], tuple[Path]]:
        """Pickle the path alone, so that loader workers map the files themselves."""
        return FeatureStore.open, (self.folder,)

    def __len__(self) -> int:
        return len(self._shard)

    @property
    def key(self) -> str:
        """The content key."""
        return self.folder.name

    @property
    def data_bytes(self) -> int:
        """The bytes of all its features."""
        return sum(shard.layout.data_bytes for shard in self.shards)

    @cached_property
    def rows(self) -> Mapping[str, int]:
        """The row of each sample by its content digest (hexadecimal)."""
        digests = (row.tobytes().hex() for shard in self.shards for row in shard.digests)
        return {digest: index for index, digest in enumerate(digests)}

    def read(self, rows: Sequence[int]) -> Features:
        """Return a copy of these rows: tokens [B, N, D], zero where padded, mask [B, N], pooled [B, D] or None.

        Raises:
            FeatureStoreError: a number is not what was written.
        """
        chosen = np.asarray(rows)
        self._check(chosen)
        places = list(zip(self._shard[chosen].tolist(), self._own[chosen].tolist(), strict=True))
        starts, stops = self._starts[chosen], self._stops[chosen]
        lengths = stops - starts
        first = self.shards[0].layout
        longest = int(lengths.max())
        make = np.empty if int(lengths.min()) == longest else np.zeros  # nothing is padded, or some of it is
        tokens = make((len(chosen), longest, first.width * (1 + first.layers)), NUMPY_DTYPES[first.dtype])
        spans = zip(places, starts.tolist(), stops.tolist(), strict=True)
        for target, ((shard, _), start, stop) in zip(tokens, spans, strict=True):
            target[: stop - start] = self.shards[shard].tokens[start:stop]
        pooled = None
        if first.pooled:
            pooled = self._tensor(np.stack([self.shards[shard].pooled[row] for shard, row in places]))
        parts = self._tensor(tokens).chunk(1 + first.layers, -1)
        mask = torch.from_numpy(np.arange(longest) < lengths[:, None])
        return Features(parts[0], mask, pooled, tuple(parts[1:]))

    def cost(self, rows: Iterable[int]) -> Cost:
        """Return what it took to compute these rows, whichever run did: of each shard, the share that they are."""
        used = Counter(self._shard[sorted(set(rows))].tolist())
        parts = (
            self.shards[shard].layout.cost.of(count / self.shards[shard].layout.samples)
            for shard, count in used.items()
        )
        return sum(parts, Cost())

    def verify(self, progress: Progress = lambda done, total: None) -> None:
        """Read every shard and compare it with its checksums.

        Raises:
            FeatureStoreError: a number is not what was written.
        """
        for number, shard in enumerate(self.shards, start=1):
            shard.verify()
            progress(number, len(self.shards))

    def _check(self, rows: Array) -> None:
        for row in rows[~self._checked[rows]].tolist():
            self.shards[self._shard[row]].check(int(self._own[row]))
            self._checked[row] = True

    def _tensor(self, values: Array) -> Tensor:
        return torch.from_numpy(values).view(DTYPES[self.shards[0].layout.dtype])


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a build would add to a store: samples that are not there, of how many, and about how many bytes."""

    samples: int
    missing: int
    data_bytes: int
    free_bytes: int


def forecast(
    folder: Path, encode: Encode, samples: Sequence[str], load: Load, *, dtype: torch.dtype | None = None
) -> Forecast:
    """Return what `build_or_open` would add; the tower runs on a few samples only, and nothing is written.

    Raises:
        FeatureStoreError: the store is damaged.
    """
    missing = _missing(FeatureStore.open(folder), samples)
    needed = 0
    if missing:
        chosen = missing[:: max(1, len(missing) // SAMPLES_A_STEP)][:SAMPLES_A_STEP]
        needed = _needed(encode(load(chosen)), len(missing), dtype)
    return Forecast(len(set(samples)), len(missing), needed, shutil.disk_usage(_existing(folder)).free)


def build_or_open(
    folder: Path,
    encode: Encode,
    samples: Sequence[str],
    load: Load,
    *,
    about: Mapping[str, Any],
    dtype: torch.dtype | None = None,
    progress: Progress = lambda done, total: None,
    samples_a_step: int = SAMPLES_A_STEP,
    shard_bytes: int = SHARD_BYTES,
    flops: Flops | None = None,
) -> FeatureStore:
    """Open the store in a folder named after its key; samples that it lacks are computed and added first.

    encode: runs what is frozen. samples: content digests; equal ones are computed once. load: gives the inputs of some
    positions in `samples`. about: what the key was made of, kept in each shard. dtype: in which features are kept;
    None: that in which they are computed. flops: counts what `encode` has taken so far; each shard keeps what its own
    features took.

    One process builds at a time, and others wait. One that is cut off leaves the shards that it finished.

    Raises:
        FeatureStoreError: the store is damaged, or cannot hold what this tower gives.
        OutputError: the folder cannot be written, or the disk is too small.
    """
    store = FeatureStore.open(folder)
    if not _missing(store, samples):
        return store
    with building(folder):
        missing = _missing(FeatureStore.open(folder), samples)  # another process may have built meanwhile
        parts = _encoded(encode, samples, missing, load, progress, samples_a_step)
        taken = _Taking(flops)
        for digests, features in parts:
            if digests[0] == samples[missing[0]]:
                _check_space(folder, _needed(features, len(missing), dtype), len(missing))
            with new_shard(folder) as file:
                writer = ShardWriter(file, folder.name, about, dtype)
                writer.add(digests, features)
                while writer.data_bytes < shard_bytes and (more := next(parts, None)) is not None:
                    writer.add(*more)
                writer.finish(taken.since_last())
    return FeatureStore.open(folder)


class _Taking:
    """Tells what was taken since it was asked last, or made."""

    def __init__(self, flops: Flops | None) -> None:
        self._flops, self._began, self._before = flops, time.perf_counter(), flops() if flops else 0

    def since_last(self) -> Cost:
        now, whole = time.perf_counter(), self._flops() if self._flops else 0
        cost = Cost(round(now - self._began, 6), whole - self._before if self._flops else None)
        self._began, self._before = now, whole
        return cost


def _encoded(
    encode: Encode,
    samples: Sequence[str],
    missing: Sequence[int],
    load: Load,
    progress: Progress,
    samples_a_step: int,
) -> Iterator[tuple[list[str], Features]]:
    """Yield the digests and the features of some samples at a time."""
    for start in range(0, len(missing), samples_a_step):
        chosen = missing[start : start + samples_a_step]
        yield [samples[index] for index in chosen], encode(load(chosen))
        progress(start + len(chosen), len(missing))


def _missing(store: FeatureStore, samples: Sequence[str]) -> list[int]:
    """Return the first position of each sample that is not stored."""
    first = {digest: index for index, digest in reversed(list(enumerate(samples)))}
    return sorted(index for digest, index in first.items() if digest not in store.rows)


def _kind(shard: Shard) -> tuple[object, ...]:
    layout = shard.layout
    return layout.width, layout.layers, layout.dtype, layout.pooled


def _needed(features: Features, samples: int, dtype: torch.dtype | None) -> int:
    """Return about how many bytes so many samples take, of which these are some."""
    size = (dtype or features.tokens.dtype).itemsize
    row = features.tokens.shape[2] * (1 + len(features.layers))
    pooled = 0 if features.pooled is None else features.pooled.numel()
    values = int(features.mask.sum()) * row + pooled
    return -(-values * size * samples // len(features.tokens)) + 48 * samples  # and the index


def _check_space(folder: Path, needed: int, samples: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"The features of {samples:,} samples need about {_size(needed)}, and {folder} has {_size(free)} free. "
            "Free some space, choose another store.folder, keep fewer bits (store.dtype), or train without the store."
        )


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.2f} MB"


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())
