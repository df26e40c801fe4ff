"""Streams: samples that are read in order, a few shards at a time, and never all held.

The order of an epoch is a pure function of (seed, epoch). The shards stand in a drawn order, turned by a drawn number
of samples; that sequence is cut into as many lanes of the same length as there are places read at a time; within a
lane, windows of samples are shuffled, which together hold `shuffle_buffer` samples. Each micro-batch takes as many
samples from each lane. So every sample is seen once in an epoch (but for those at its end that fill no batch, other
ones in each epoch), a batch is the same for any number of processes and loader processes, a process reads the lanes
alone that its part of a batch comes from, and a training goes on anywhere without what came before being read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from renaissance.data.hashing import stable_hash
from renaissance.data.records import Record
from renaissance.data.sampling import BatchPlan, Indices, Part, epoch_order
from renaissance.data.streaming.shards import Shard
from renaissance.data.streaming.sources import find_shards
from renaissance.errors import DataError, SpecError
from renaissance.recipe.data import StreamData
from renaissance.recipe.values import OnBadSample

MOST_LANES = 8
MOST_MEASURED = 5000
BLOCK = 256  # samples read at a time where all are passed over once


@dataclass(frozen=True, slots=True)
class Stream:
    """The training samples of a stream.

    shuffle_buffer: samples held at a time; 1: the shards are shuffled alone. interleave: places read at a time;
    default: the greatest divisor of a micro-batch up to 8.
    """

    shards: tuple[Shard, ...]
    shuffle_buffer: int = 1000
    interleave: int | None = None

    def __len__(self) -> int:
        return sum(_counts(self.shards))

    @property
    def distinct(self) -> int:
        """How many samples there are, each counted once."""
        return len(self)

    def __iter__(self) -> Iterator[Record]:
        """Yield every sample once, as the shards hold them."""
        for shard in self.shards:
            for start in range(0, shard.count, BLOCK):
                yield from shard.read(start, min(start + BLOCK, shard.count))

    @property
    def identity(self) -> str:
        """A digest of what decides which samples come when."""
        marks = "\n".join([*(shard.mark for shard in self.shards), f"{self.shuffle_buffer} {self.interleave}"])
        return sha256(marks.encode()).hexdigest()

    def parts(self, plan: BatchPlan, numbers: range) -> Iterator[Part]:
        """Yield this process's part of each of these micro-batches, which are counted over all updates.

        Raises:
            SpecError: `interleave` does not divide a micro-batch.
            DataError, HubError: a shard cannot be read.
        """
        whole = plan.batch_size // plan.accumulation
        share = whole // plan.world_size
        lanes = self._lanes(whole)
        reader = StreamReader(self, plan.seed, lanes)
        for number in numbers:
            step, micro = divmod(number, plan.accumulation)
            epoch, step_of_epoch = divmod(step, plan.steps_per_epoch)
            before = (step_of_epoch * plan.accumulation + micro) * (whole // lanes)
            slots = (divmod(slot, whole // lanes) for slot in range(plan.rank * share, (plan.rank + 1) * share))
            yield Part([reader.sample(epoch, lane, before + offset) for lane, offset in slots], [epoch] * share)

    def read(self, start: int, stop: int, epoch: int, seed: int) -> list[Record]:
        """Return the samples from place `start` up to `stop` of an epoch's sequence, before windows are shuffled."""
        counts = _counts(self.shards)
        order, ends = _sequence(counts, seed, epoch)
        turn = stable_hash("turn", seed, epoch) % sum(counts)
        records: list[Record] = []
        place, last = start + turn, stop + turn
        while place < last:
            wrapped = place % sum(counts)
            at = int(np.searchsorted(ends, wrapped, side="right"))
            shard = self.shards[order[at]]
            first = wrapped - (int(ends[at]) - shard.count)
            taken = min(last - place, shard.count - first)
            records += shard.read(first, first + taken)
            place += taken
        return records

    def _lanes(self, whole: int) -> int:
        if self.interleave is None:
            return max(lanes for lanes in range(1, MOST_LANES + 1) if whole % lanes == 0)
        if whole % self.interleave:
            raise SpecError(
                f"A micro-batch of {whole} cannot be taken from {self.interleave} places of a stream in equal parts. "
                f"Set data.interleave to a divisor of {whole}, or leave it out."
            )
        return self.interleave


@dataclass(slots=True)
class StreamReader:
    """Reads the samples of a stream in the order of its epochs; of each lane it holds one window."""

    stream: Stream
    seed: int
    lanes: int = 1
    _count: int = field(init=False)
    _held: dict[int, tuple[tuple[int, int], list[Record]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Count the samples once: it takes a look at each shard."""
        self._count = len(self.stream)

    def sample(self, epoch: int, lane: int, index: int) -> Record:
        """Return sample `index` of a lane."""
        length = self._count // self.lanes
        size = max(1, self.stream.shuffle_buffer // self.lanes)
        window, inside = divmod(index, size)
        if lane not in self._held or self._held[lane][0] != (epoch, window):
            self._held.pop(lane, None)  # before the next one is read: one window of a lane is held
            start, stop = window * size, min((window + 1) * size, length)
            records = self.stream.read(lane * length + start, lane * length + stop, epoch, self.seed)
            order = epoch_order(stop - start, stable_hash("window", self.seed, epoch, lane), window)
            self._held[lane] = ((epoch, window), [records[place] for place in order])
        return self._held[lane][1][inside]

    def at(self, position: int) -> tuple[Record, int]:
        """Return the sample at a position counted over all epochs, and its epoch; of a reader with one lane."""
        epoch, index = divmod(position, self._count)
        return self.sample(epoch, 0, index), epoch


@lru_cache(maxsize=64)
def _counts(shards: tuple[Shard, ...]) -> tuple[int, ...]:
    return tuple(shard.count for shard in shards)


@lru_cache(maxsize=8)
def _sequence(counts: tuple[int, ...], seed: int, epoch: int) -> tuple[Indices, Indices]:
    """Return the order of the shards in an epoch, and where each of them ends in its sequence, int64 [shards] both."""
    order = epoch_order(len(counts), stable_hash("shards", seed), epoch)
    return order, np.cumsum(np.array(counts, dtype=np.int64)[order])


# --- from a recipe ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenedStream:
    """A stream to train on, its own splits by name, what was found, and what is left out."""

    train: Stream
    splits: Mapping[str, tuple[Record, ...]]
    facts: tuple[str, ...]
    skipped: tuple[str, ...]


def open_stream(data: StreamData, *, cache: Path, on_bad_sample: OnBadSample) -> OpenedStream:
    """Return the stream of a recipe, and those of its splits that are splits of the same source.

    Raises:
        DataError: there is nothing at the source, or it holds no sample.
        SampleError: a part of it cannot be used, and `on_bad_sample` is "error".
        HubError: the Hub does not answer.
    """
    found = find_shards(data, data.split, cache=cache, on_bad_sample=on_bad_sample)
    train = Stream(found.shards, data.shuffle_buffer, data.interleave)
    if not found.shards:
        reason = f"; the first fault: {found.skipped[0]}" if found.skipped else ""
        raise DataError(f"The stream '{data.source}' has no sample in its split '{data.split}'{reason}.")
    splits: dict[str, tuple[Record, ...]] = {}
    skipped = list(found.skipped)
    for name, held in data.splits.items():
        if held.data is None:
            part = find_shards(data, held.split or name, cache=cache, on_bad_sample=on_bad_sample)
            splits[name] = _first(Stream(part.shards), held.samples or MOST_MEASURED)
            skipped += part.skipped
    size = f"a stream of {len(train):,} samples in {len(found.shards):,} shards"
    return OpenedStream(train, splits, (*found.facts, size), tuple(skipped))


def _first(stream: Stream, count: int) -> tuple[Record, ...]:
    return tuple(record for record, _ in zip(stream, range(count), strict=False))
