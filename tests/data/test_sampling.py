from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renaissance.data.sampling import BatchPlan, epoch_order, sample_seed
from renaissance.errors import DataError, SpecError


@given(count=st.integers(0, 300), seed=st.integers(0, 2**31), epoch=st.integers(0, 1000))
def test_an_epoch_has_every_sample_once(count: int, seed: int, epoch: int) -> None:
    assert sorted(epoch_order(count, seed, epoch)) == list(range(count))


def test_orders_differ_between_epochs_and_seeds_and_are_repeated_exactly() -> None:
    orders = [tuple(epoch_order(50, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert orders[0] == tuple(epoch_order(50, 0, 0))


def test_the_order_of_a_seed_is_part_of_the_format() -> None:
    assert epoch_order(8, 7, 3).tolist() == [2, 4, 7, 3, 5, 1, 0, 6]
    assert sample_seed(7, 3, "noto/0023.webp") == 5945897555071467079


@given(
    world_size=st.sampled_from([1, 2, 4]),
    accumulation=st.sampled_from([1, 2]),
    start=st.integers(0, 20),
    seed=st.integers(0, 9),
)
def test_the_samples_of_an_update_are_the_same_for_any_world_size(
    world_size: int, accumulation: int, start: int, seed: int
) -> None:
    def samples(size: int, parts: int) -> list[list[int]]:
        ranks = [
            list(
                BatchPlan(count=37, batch_size=8, world_size=size, rank=rank, seed=seed, accumulation=parts).batches(
                    start, 7
                )
            )
            for rank in range(size)
        ]
        return [[int(i) for rank in ranks for i in rank[place].indices] for place in range(7 * parts)]

    alone, divided = samples(1, accumulation), samples(world_size, accumulation)
    assert alone == divided
    whole = [
        [i for part in divided[step * accumulation : (step + 1) * accumulation] for i in part] for step in range(7)
    ]
    assert whole == samples(1, 1)


@given(
    count=st.integers(8, 60),
    seed=st.integers(0, 9),
    worlds=st.lists(st.sampled_from([1, 2, 4]), min_size=2, max_size=5),
    lengths=st.lists(st.integers(1, 6), min_size=5, max_size=5),
)
def test_a_training_that_goes_on_with_other_numbers_of_processes_reads_what_one_reads(
    count: int, seed: int, worlds: list[int], lengths: list[int]
) -> None:
    """As from 1 process to 2, back to 1 and to 4, over epochs whose last batch would not be full."""

    def read(world: int, first: int, steps: int) -> list[list[int]]:
        plans = [BatchPlan(count=count, batch_size=8, world_size=world, rank=rank, seed=seed) for rank in range(world)]
        parts = [list(plan.batches(first, steps)) for plan in plans]
        return [[int(i) for part in parts for i in part[step].indices] for step in range(steps)]

    found: list[list[int]] = []
    for world, length in zip(worlds, lengths, strict=False):
        found += read(world, len(found), length)
    assert found == read(1, 0, len(found))


def test_batches_of_an_epoch_share_no_sample_and_the_rest_is_dropped() -> None:
    plan = BatchPlan(count=37, batch_size=8)
    assert plan.steps_per_epoch == 4
    seen = np.concatenate([batch.indices for batch in plan.batches(4, 4)])
    assert len(set(seen)) == 32
    assert {batch.epoch for batch in plan.batches(4, 4)} == {1}


def test_starting_later_gives_the_same_batches() -> None:
    plan = BatchPlan(count=37, batch_size=8, accumulation=2)
    late = [batch.indices.tolist() for batch in plan.batches(5, 3)]
    assert late == [batch.indices.tolist() for batch in plan.batches(0, 8)][10:]


def test_a_batch_that_cannot_be_formed_is_refused() -> None:
    with pytest.raises(DataError, match="A batch of 64 cannot be formed of 10 training samples"):
        BatchPlan(count=10, batch_size=64)
    with pytest.raises(SpecError, match=r"Set batch.size to a multiple of 6"):
        BatchPlan(count=100, batch_size=8, world_size=2, accumulation=3)
    with pytest.raises(SpecError, match="Rank 2 is not one of 2"):
        BatchPlan(count=100, batch_size=8, world_size=2, rank=2)


@given(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.text()),
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.text()),
)
def test_sample_seeds_are_63_bits_and_differ(one: tuple[int, int, str], other: tuple[int, int, str]) -> None:
    assert 0 <= sample_seed(*one) < 2**63
    assert (sample_seed(*one) == sample_seed(*other)) == (one == other)
