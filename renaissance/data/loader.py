"""The batches of a training, made in this process or in loader processes; the batches are the same either way."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from renaissance.api import Batch
from renaissance.data import watch as watching
from renaissance.data.ahead import ahead
from renaissance.data.collate import Collator
from renaissance.data.collate_items import ItemCollator
from renaissance.data.sampling import BatchPlan, Feed, Part
from renaissance.data.watch import Watch, named, patiently
from renaissance.errors import LoaderError, RenaissanceError

NO_MEMORY = "allocate memory"  # in what the system and torch say of it


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
        LoaderError: a loader process died or hangs (for two minutes, and a second for each sample of a micro-batch),
            or the code that prepares samples failed in it; it names the samples. What this process reads itself is
            told by a RuntimeWarning where it hangs.
    """
    first, last = start_step * plan.accumulation, (start_step + steps) * plan.accumulation
    numbers = range(first, last)
    size = plan.batch_size // (plan.accumulation * plan.world_size)
    # closed here, for an error's traceback would keep the loader processes alive as long as someone holds it
    with ExitStack() as opened:
        if isinstance(records, Feed):
            # one process reads, so that each byte is read once, and all of them decode
            batches = _Parts(collator)
            parts = opened.enter_context(closing(ahead(records.parts(plan, numbers))))
            read = patiently(parts, batches.samples, first, size)
            prepared = opened.enter_context(closing(_prepared(batches, enumerate(read, first), first, size, workers)))
        else:
            prepared = opened.enter_context(
                closing(_prepared(_MicroBatches(records, plan, collator), numbers, first, size, workers))
            )
        for step in range(start_step, start_step + steps):
            yield step, [_batch(next(prepared)) for _ in range(plan.accumulation)]


def _prepared(
    batches: _MicroBatches | _Parts, order: Iterable[Any], first: int, size: int, workers: int
) -> Generator[Batch | RenaissanceError, None, None]:
    """Yield the micro-batches in this order, the first of which has this number, of so many samples each."""
    context = _context() if workers else None
    watch = None if context is None else Watch(context, workers)
    source: DataLoader[Any] = DataLoader(
        _Watched(batches, watch),
        batch_size=None,
        sampler=order,
        num_workers=workers,
        timeout=watching.LOOK if workers else 0,
        collate_fn=_unchanged,
        worker_init_fn=None if watch is None else watch.begin,
        generator=torch.Generator(),  # a loader draws a seed for its processes: not from the generator of the training
        multiprocessing_context=context,
    )
    with _silent_fork_of_tokenizers(), _without_handler_of_children():
        prepared = iter(source)
    if watch is None:
        yield from prepared if isinstance(batches, _Parts) else patiently(prepared, batches.samples, first, size)
    else:
        yield from watch.telling(map(pickle.loads, prepared), batches.samples, first, size)


@dataclass(frozen=True, slots=True)
class _Watched(Dataset[Any]):
    """Micro-batches, each of which is noted before it is prepared; an error is returned, to be raised in the training.

    Raised in a loader process it would come out as a RuntimeError around the text of a traceback. A loader process
    pickles here what it prepared, which puts tensors into shared memory: where there is no more of that, the thread in
    which torch does it would print a traceback, send nothing, and the training would wait.
    """

    batches: _MicroBatches | _Parts
    watch: Watch | None

    def __getitem__(self, wanted: Any) -> Batch | RenaissanceError | bytes:
        if self.watch is None:
            return self._prepared(wanted)
        self.watch.note(wanted if isinstance(wanted, int) else wanted[0])
        try:
            return _pickled(self._prepared(wanted))
        except Exception as error:
            return _pickled(_failed(error, self.batches.samples(wanted)))

    def _prepared(self, wanted: Any) -> Batch | RenaissanceError:
        try:
            return self.batches.prepare(wanted)
        except RenaissanceError as error:
            return error


def _pickled(batch: Batch | RenaissanceError) -> bytes:
    return bytes(ForkingPickler.dumps(batch))


def _failed(error: Exception, samples: str) -> LoaderError:
    """Return the error for the code of a loader process that failed, or had no memory."""
    worker: Any = get_worker_info()
    who = f"Loader process {worker.id + 1} of {worker.num_workers}"
    if isinstance(error, MemoryError) or NO_MEMORY in str(error):
        failed = LoaderError(
            f"{who} ran out of memory while it prepared {samples}. Use fewer 'workers', or a smaller batch; then "
            "--resume."
        )
    else:
        failed = LoaderError(
            f"{who} failed while it prepared {samples} ({type(error).__name__}: {error}). With 'workers: 0' the error "
            "is raised where it happens."
        )
    failed.add_note("".join(traceback.format_exception(error)))
    return failed


@dataclass(frozen=True, slots=True)
class _MicroBatches:
    """The micro-batches of a training by number."""

    records: Sequence[Any]
    plan: BatchPlan
    collator: Collator | ItemCollator

    def prepare(self, number: int) -> Batch:
        part = self.plan.micro_batch(*divmod(number, self.plan.accumulation))
        return self.collator([self.records[index] for index in part.indices], part.epoch)

    def samples(self, number: int) -> str:
        """Name the samples of a micro-batch."""
        part = self.plan.micro_batch(*divmod(number, self.plan.accumulation))
        return named([self.records[index].id for index in part.indices])


@dataclass(frozen=True, slots=True)
class _Parts:
    """The micro-batch of samples that were read, with its number; an error, met while reading them, stays one."""

    collator: Collator | ItemCollator

    def prepare(self, numbered: tuple[int, Part | RenaissanceError]) -> Batch:
        part = numbered[1]
        if isinstance(part, RenaissanceError):
            raise part
        return self.collator(part.samples, part.epochs)

    def samples(self, numbered: int | tuple[int, Part]) -> str:
        """Name the samples of a micro-batch; of one that only its number is known of, that."""
        if isinstance(numbered, int):
            return f"micro-batch {numbered + 1:,}"
        return named([sample.id for sample in numbered[1].samples])


def _batch(prepared: Batch | RenaissanceError) -> Batch:
    if isinstance(prepared, RenaissanceError):
        raise prepared
    return prepared


def _unchanged(batch: object) -> object:
    return batch


def _context() -> multiprocessing.context.BaseContext:
    """Return how loader processes start: by fork where that is safe, for a fresh process pays seconds of imports.

    A fork copies no thread, only what they locked. Here they are forked before the thread that reads ahead is started,
    they compute with one thread, and what draws bars in another one is nothing that they use. After CUDA none can be.
    """
    forks = sys.platform == "linux" and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return multiprocessing.get_context("fork" if forks else "spawn")


@contextmanager
def _without_handler_of_children() -> Iterator[None]:
    """Take back the handler that torch sets for children that end.

    It raises wherever the main thread is, which may be in the middle of an update. Without it the death of a loader
    process is found where its next batch is waited for, within seconds.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if before is not None:  # one that was set outside of Python cannot be set again
            signal.signal(signal.SIGCHLD, before)


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
