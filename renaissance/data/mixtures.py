"""Mixtures: several data in one training, each with its weight.

Of every ten thousand slots in the batches, each part has its weight's share; which ones they are is drawn by seed. So
what comes when is a pure function of the slot, and a training goes on anywhere. A part that ends begins again, in
another order, on its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import Any, Protocol

import numpy as np

from renaissance.data.hashing import stable_hash
from renaissance.data.sampling import BatchPlan, Indices, Part, epoch_order
from renaissance.data.streams import Stream, StreamReader
from renaissance.errors import DataError

BLOCK = 10_000


@dataclass(frozen=True, slots=True)
class Mixture:
    """Training samples of several parts; the weights are relative to each other. An epoch is one of the first part."""

    names: tuple[str, ...]
    samples: tuple[Sequence[Any] | Stream, ...]
    weights: tuple[float, ...]
    digests: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that each part has something.

        Raises:
            DataError: one has no sample.
        """
        for name, samples in zip(self.names, self.samples, strict=True):
            if not len(samples):
                raise DataError(f"The part '{name}' of the mixture has no sample to train on; leave it out.")

    def __len__(self) -> int:
        """Samples of an epoch, of all parts together."""
        return len(self.samples[0]) * BLOCK // self.counts[0]

    @property
    def distinct(self) -> int:
        """How many samples there are in all parts, each counted once."""
        return sum(map(len, self.samples))

    def __iter__(self) -> Iterator[Any]:
        """Yield every sample of every part once."""
        for samples in self.samples:
            yield from samples

    @property
    def counts(self) -> tuple[int, ...]:
        """The slots of each part in a block, at least one; they sum to the block."""
        total = sum(self.weights)
        ends = [round(BLOCK * end / total) for end in accumulate(self.weights)]
        counts = [end - start for start, end in pairwise([0, *ends])]
        for part, count in enumerate(counts):
            if count < 1:
                counts[part], largest = 1, counts.index(max(counts))
                counts[largest] -= 1 - count
        return tuple(counts)

    @property
    def identity(self) -> str:
        """A digest of what decides which samples come when."""
        return sha256(repr((self.names, self.weights, self.digests)).encode()).hexdigest()

    def parts(self, plan: BatchPlan, numbers: range) -> Iterator[Part]:
        """Yield this process's part of each of these micro-batches, which are counted over all updates.

        Raises:
            DataError, HubError: a shard of a stream cannot be read.
        """
        readers = [
            _reader(samples, stable_hash("part", plan.seed, number)) for number, samples in enumerate(self.samples)
        ]
        whole = plan.batch_size // plan.accumulation
        share = whole // plan.world_size
        for number in numbers:
            step, micro = divmod(number, plan.accumulation)
            first = micro * whole + plan.rank * share
            slots = self.slots(step, plan.batch_size, plan.seed)[first : first + share]
            found = [readers[part].at(position) for part, position in slots]
            yield Part([sample for sample, _ in found], [epoch for _, epoch in found])

    def slots(self, step: int, size: int, seed: int) -> list[tuple[int, int]]:
        """Return for each slot of an update its part, and the position in it, counted over all passes through it."""
        counts, found = self.counts, []
        for slot in range(step * size, (step + 1) * size):
            block, inside = divmod(slot, BLOCK)
            parts, places = _block(counts, stable_hash("slots", seed), block)
            part = int(parts[inside])
            found.append((part, block * counts[part] + int(places[inside])))
        return found


@lru_cache(maxsize=4)
def _block(counts: tuple[int, ...], seed: int, block: int) -> tuple[Indices, Indices]:
    """Return for each slot of a block its part, and its place among the slots of that part, int64 [BLOCK] both."""
    parts = np.repeat(np.arange(len(counts)), counts)[epoch_order(BLOCK, seed, block)]
    places = np.empty(BLOCK, dtype=np.int64)
    for part, count in enumerate(counts):
        places[parts == part] = np.arange(count)
    return parts, places


class _Reader(Protocol):
    """Gives the sample at a position of a part, counted over all passes, and the number of the pass."""

    def at(self, position: int) -> tuple[Any, int]: ...


@dataclass(slots=True)
class _ListReader:
    """The samples of a part that is held, in the order of their epochs; the orders of two epochs are kept."""

    samples: Sequence[Any]
    seed: int
    orders: dict[int, Indices]

    def at(self, position: int) -> tuple[Any, int]:
        epoch, index = divmod(position, len(self.samples))
        if epoch not in self.orders:
            self.orders = {old: order for old, order in self.orders.items() if old == epoch - 1}
            self.orders[epoch] = epoch_order(len(self.samples), self.seed, epoch)
        return self.samples[self.orders[epoch][index]], epoch


def _reader(samples: Sequence[Any] | Stream, seed: int) -> _Reader:
    return StreamReader(samples, seed) if isinstance(samples, Stream) else _ListReader(samples, seed, {})
