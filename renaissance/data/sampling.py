"""Which samples make which batch: pure functions of (seed, epoch, step), the same for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from renaissance.data.hashing import stable_hash
from renaissance.errors import DataError, SpecError

Indices = NDArray[np.int64]


def epoch_order(count: int, seed: int, epoch: int) -> Indices:
    """Return the samples 0 to count - 1 in the order of this epoch, int64 [count]."""
    # sorted raw bits: numpy promises the same bits in every version, and not the same `permutation`
    keys = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(count)
    return np.argsort(keys, kind="stable").astype(np.int64)


def sample_seed(seed: int, epoch: int, sample_id: str) -> int:
    """Return 63 bits that decide what is random about a sample in an epoch."""
    return stable_hash("sample", seed, epoch, sample_id)


class MicroBatch(NamedTuple):
    """One process's part of one micro-batch of an update; `indices` are rows of the training samples, int64 [P]."""

    step: int
    micro: int
    epoch: int
    indices: Indices


class Part(NamedTuple):
    """One process's part of a micro-batch: samples, and the epoch of each, which counts passes over its own data."""

    samples: list[Any]
    epochs: list[int]


@runtime_checkable
class Feed(Protocol):
    """Training samples that come in an order of their own, and are not held: a stream, or a mixture."""

    def __len__(self) -> int:
        """Samples of an epoch."""
        ...

    @property
    def distinct(self) -> int:
        """How many samples there are, each counted once."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Yield every sample once."""
        ...

    @property
    def identity(self) -> str:
        """A digest of what decides which samples come when."""
        ...

    def parts(self, plan: BatchPlan, numbers: range) -> Iterator[Part]:
        """Yield this process's part of each of these micro-batches, which are counted over all updates."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """The batches of a training on `count` samples, as rank `rank` of `world_size` processes sees them.

    batch_size: samples of one update over all processes and all `accumulation` micro-batches. The samples of an update
    and of each of its micro-batches are the same for any world size; a rank takes its contiguous slice of each. The
    samples at the end of an epoch that fill no batch are dropped, other ones in each epoch.

    Raises:
        SpecError: the batch cannot be divided among the processes and micro-batches.
        DataError: there are fewer samples than one batch holds.
    """

    count: int
    batch_size: int
    world_size: int = 1
    rank: int = 0
    seed: int = 0
    accumulation: int = 1

    def __post_init__(self) -> None:
        """Check that batches can be formed."""
        if not 0 <= self.rank < self.world_size:
            raise SpecError(f"Rank {self.rank} is not one of {self.world_size} processes (0 is the first).")
        parts = self.world_size * self.accumulation
        if self.batch_size < 1 or self.batch_size % parts:
            raise SpecError(
                f"A batch of {self.batch_size} cannot be divided among {self.world_size} processes and "
                f"{self.accumulation} micro-batches. Set batch.size to a multiple of {parts}."
            )
        if self.count < self.batch_size:
            raise DataError(
                f"A batch of {self.batch_size} cannot be formed of {self.count} training samples. "
                f"Set batch.size to at most {self.count}."
            )

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass over the training samples."""
        return self.count // self.batch_size

    @property
    def share(self) -> int:
        """Samples of one process in one micro-batch."""
        return self.batch_size // self.accumulation // self.world_size

    def micro_batch(self, step: int, micro: int) -> MicroBatch:
        """Return this rank's part of micro-batch `micro` of update `step`; both count from 0."""
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        whole = self.batch_size // self.accumulation
        first = step_of_epoch * self.batch_size + micro * whole + self.rank * self.share
        order = _cached_order(self.count, self.seed, epoch)
        return MicroBatch(step, micro, epoch, order[first : first + self.share])

    def batches(self, start_step: int, steps: int) -> Iterator[MicroBatch]:
        """Yield this rank's micro-batches of `steps` updates from `start_step` on, in order."""
        for step in range(start_step, start_step + steps):
            for micro in range(self.accumulation):
                yield self.micro_batch(step, micro)


@lru_cache(maxsize=4)
def _cached_order(count: int, seed: int, epoch: int) -> Indices:
    order = epoch_order(count, seed, epoch)
    order.setflags(write=False)
    return order
