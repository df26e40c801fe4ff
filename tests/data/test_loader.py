from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from renaissance.api import Batch
from renaissance.data.collate import Collator
from renaissance.data.loader import loader
from renaissance.data.records import Record
from renaissance.data.sampling import BatchPlan, Part
from renaissance.errors import SampleError
from renaissance.recipe.training import Augmentation
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.text import WordTokenizer

PLAN = BatchPlan(count=10, batch_size=4, accumulation=2, seed=3)


@pytest.fixture
def collator(images: ImageProcessor, texts: WordTokenizer) -> Collator:
    return Collator(images, texts, seed=3, augmentation=Augmentation(crop=(0.3, 1.0), flip=True, randaugment=1))


def content(batch: Batch) -> tuple[object, ...]:
    assert batch.images is not None
    tensors = (
        batch.images.pixels,
        batch.texts.token_ids,
        batch.pairs,
        batch.seeds,
        batch.caption_keys,
        batch.text_keys,
    )
    return (*(tensor.tolist() for tensor in tensors), batch.ids)


def test_loader_processes_change_nothing(records: list[Record], collator: Collator) -> None:
    alone, helped = (
        [
            (step, [content(batch) for batch in batches])
            for step, batches in loader(records, PLAN, collator, start_step=1, steps=4, workers=workers)
        ]
        for workers in (0, 2)
    )
    assert alone == helped
    assert [step for step, _ in alone] == [1, 2, 3, 4]
    assert all(len(batches) == 2 for _, batches in alone)


def test_a_later_start_gives_the_same_batches(records: list[Record], collator: Collator) -> None:
    whole = list(loader(records, PLAN, collator, start_step=0, steps=5))
    late = list(loader(records, PLAN, collator, start_step=3, steps=2))
    assert [[content(batch) for batch in step] for _, step in whole[3:]] == [
        [content(batch) for batch in step] for _, step in late
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_is_the_same_error_from_every_process(
    records: list[Record], collator: Collator, workers: int
) -> None:
    Path(records[6].image.name).unlink()
    with pytest.raises(SampleError) as caught:
        list(loader(records, PLAN, collator, start_step=0, steps=10, workers=workers))
    assert not multiprocessing.active_children()
    assert "6.png" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_skipped_samples_come_with_their_batch(records: list[Record], collator: Collator) -> None:
    Path(records[6].image.name).unlink()
    plan = BatchPlan(count=10, batch_size=10)
    steps = loader(records, plan, replace(collator, on_bad_sample="skip"), start_step=0, steps=2)
    assert [len(batch.skipped) for _, (batch,) in steps] == [1, 1]


def test_closing_early_ends_the_loader_processes(records: list[Record], collator: Collator) -> None:
    batches = loader(records, PLAN, collator, start_step=0, steps=50, workers=2)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert not multiprocessing.active_children()


def test_loading_leaves_the_global_generator_alone(records: list[Record], collator: Collator) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader(records, PLAN, collator, start_step=0, steps=2))
    assert torch.equal(before, torch.get_rng_state())


def test_all_that_a_fresh_loader_process_needs_can_be_sent_to_it(records: list[Record], collator: Collator) -> None:
    sent = pickle.loads(pickle.dumps((records, PLAN, collator)))
    (_, here), (_, there) = (next(loader(*parts, start_step=0, steps=1)) for parts in ((records, PLAN, collator), sent))
    assert [content(batch) for batch in here] == [content(batch) for batch in there]


@dataclass(frozen=True)
class Watched:
    """A feed that notes how many loader processes there are whenever it is read."""

    records: list[Record]
    seen: list[int] = field(default_factory=list)
    identity: str = "watched"

    @property
    def distinct(self) -> int:
        return len(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        yield from self.records

    def parts(self, plan: BatchPlan, numbers: range) -> Iterator[Part]:
        for _ in numbers:
            self.seen.append(len(multiprocessing.active_children()))
            yield Part(self.records[:4], [0] * 4)


def test_loader_processes_start_before_the_thread_that_reads(records: list[Record], collator: Collator) -> None:
    feed = Watched(records)
    plan = BatchPlan(count=len(records), batch_size=4, seed=0)
    with closing(loader(feed, plan, collator, start_step=0, steps=3, workers=2)) as steps:
        assert len(list(steps)) == 3
    assert feed.seen[0] == 2
