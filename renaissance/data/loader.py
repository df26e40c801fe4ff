"""The batches of a training, made in this process or in loader processes; the batches are the same either way."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from renaissance.api import Batch
from renaissance.data.ahead import ahead
from renaissance.data.collate import Collator
from renaissance.data.collate_items import ItemCollator
from renaissance.data.sampling import BatchPlan, Feed, Part
from renaissance.errors import RenaissanceError


def loader(
    records: Sequence[Any] | Feed,
    plan: BatchPlan,
    collator: Collator | ItemCollator,
    *,
    start_step: int,
    steps: int,
    workers: int = 0,
) -> Generator[tuple[int, list[Batch]], None, None]:
    """Yield (step, its micro-batches) for `steps` updates from `start_step` on.

    workers: processes that prepare batches ahead; 0: this process does. They end when the iterator ends or is closed.

    Raises:
        SampleError: a sample cannot be used, as `Collator` raises it, from whichever process.
    """
    first, last = start_step * plan.accumulation, (start_step + steps) * plan.accumulation
    numbers = range(first, last)
    # closed here, for an error's traceback would keep the loader processes alive as long as someone holds it
    with ExitStack() as opened:
        if isinstance(records, Feed):
            # one process reads, so that each byte is read once, and all of them decode
            parts = opened.enter_context(closing(ahead(records.parts(plan, numbers))))
            prepared = opened.enter_context(closing(_prepared(_Parts(collator), parts, workers)))
        else:
            prepared = opened.enter_context(
                closing(_prepared(_MicroBatches(records, plan, collator), numbers, workers))
            )
        for step in range(start_step, start_step + steps):
            yield step, [_batch(next(prepared)) for _ in range(plan.accumulation)]


def _prepared(
    batches: _MicroBatches | _Parts, order: Iterable[Any], workers: int
) -> Generator[Batch | RenaissanceError, None, None]:
    """Yield the micro-batches in this order."""
    source: DataLoader[Any] = DataLoader(
        batches,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        collate_fn=_unchanged,
        generator=torch.Generator(),  # a loader draws a seed for its processes: not from the generator of the training
        multiprocessing_context=_context() if workers else None,
    )
    with _silent_fork_of_tokenizers():
        prepared = iter(source)
    yield from prepared


@dataclass(frozen=True, slots=True)
class _MicroBatches(Dataset[Any]):
    """The micro-batches of a training by number; a user's error is returned, to be raised where the user sees it.

    Raised in a loader process it would come out as a RuntimeError around the text of a traceback.
    """

    records: Sequence[Any]
    plan: BatchPlan
    collator: Collator | ItemCollator

    def __getitem__(self, number: int) -> Batch | RenaissanceError:
        part = self.plan.micro_batch(*divmod(number, self.plan.accumulation))
        try:
            return self.collator([self.records[index] for index in part.indices], part.epoch)
        except RenaissanceError as error:
            return error


@dataclass(frozen=True, slots=True)
class _Parts(Dataset[Any]):
    """The micro-batch of samples that were read; an error, met while reading them, stays one."""

    collator: Collator | ItemCollator

    def __getitem__(self, part: Part | RenaissanceError) -> Batch | RenaissanceError:
        if isinstance(part, RenaissanceError):
            return part
        try:
            return self.collator(part.samples, part.epochs)
        except RenaissanceError as error:
            return error


def _batch(prepared: Batch | RenaissanceError) -> Batch:
    if isinstance(prepared, RenaissanceError):
        raise prepared
    return prepared


def _unchanged(batch: object) -> object:
    return batch


def _context() -> multiprocessing.context.BaseContext:
    """Return how loader processes start: by fork where that is safe, for a fresh process pays seconds of imports."""
    forks = sys.platform == "linux" and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return multiprocessing.get_context("fork" if forks else "spawn")


@contextmanager
def _silent_fork_of_tokenizers() -> Iterator[None]:
    """Keep the tokenizers library from printing a warning into the user's terminal in each forked process."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = before or "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
