from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from renaissance.api import Score
from renaissance.errors import NonFiniteError
from renaissance.toolkit.metrics import accuracy_score, bootstrap, finite, ranks, recall_chance, recalls

CHECKS = settings(deadline=None, max_examples=100, derandomize=True)
IMAGES, CAPTIONS = 40, 3


def captions_of_images(images: int = IMAGES, each: int = CAPTIONS) -> Tensor:
    return torch.eye(images, dtype=torch.bool).repeat_interleave(each, dim=1)  # [V, T]


def by_name(scores: Tensor, positive: Tensor) -> dict[str, Score]:
    """Return the recalls in percent; the sum of all six has a test of its own."""
    found = {score.name: score for score in recalls(scores, scores.T, positive)}
    del found["sum of R@k"]
    return found


def test_an_oracle_has_full_recall() -> None:
    positive = captions_of_images()
    found = by_name(positive.float(), positive)
    assert {score.value for score in found.values()} == {100.0}
    assert {(score.low, score.high) for score in found.values()} == {(100.0, 100.0)}


def test_a_collapsed_model_recalls_nothing_and_its_ties_are_told() -> None:
    positive = captions_of_images()
    found = by_name(torch.full(positive.shape, 0.3), positive)
    assert {score.value for score in found.values()} == {0.0}
    assert {score.ties for score in found.values()} == {100.0}


def test_a_model_that_does_not_read_the_text_is_never_above_chance() -> None:
    positive = captions_of_images()
    found = by_name(torch.randn(IMAGES, 1).expand_as(positive), positive)
    assert all(score.value <= score.chance + 1e-9 for score in found.values())
    assert found["text R@1"].value == 0.0


def test_a_model_that_does_not_read_the_image_is_never_above_chance_at_one() -> None:
    positive = captions_of_images()
    found = by_name(torch.randn(1, positive.shape[1]).expand_as(positive), positive)
    assert found["text R@1"].value <= found["text R@1"].chance + 1e-9
    assert found["image R@1"].value == 0.0


def test_random_scores_are_near_chance() -> None:
    positive = captions_of_images()
    values: dict[str, list[float]] = {}
    chance = {}
    for seed in range(60):
        scores = torch.randn(positive.shape, generator=torch.Generator().manual_seed(seed))
        for name, score in by_name(scores, positive).items():
            values.setdefault(name, []).append(score.value)
            chance[name] = score.chance
    for name, found in values.items():
        assert abs(float(np.mean(found)) - chance[name]) < 1.5, name


def test_an_inverted_oracle_recalls_nothing() -> None:
    positive = captions_of_images()
    assert {score.value for score in by_name(-positive.float(), positive).values()} == {0.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_never_ranked(value: float) -> None:
    scores = torch.zeros(3, 3)
    scores[1, 2] = value
    with pytest.raises(NonFiniteError, match="a model: 1 of 9 scores are NaN or infinite"):
        finite(scores, what="a model")


@given(seed=st.integers(0, 10_000), queries=st.integers(1, 6), candidates=st.integers(1, 8))
@CHECKS
def test_a_rank_counts_the_other_candidates_that_score_at_least_as_high(
    seed: int, queries: int, candidates: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 4, (queries, candidates), generator=generator).float()
    positive = torch.rand(queries, candidates, generator=generator) < 0.3
    positive[:, 0] = True
    found, tied = ranks(scores, positive)
    for row, belongs, rank, tie in zip(scores.tolist(), positive.tolist(), found.tolist(), tied.tolist(), strict=True):
        best = max(s for s, b in zip(row, belongs, strict=True) if b)
        others = [s for s, b in zip(row, belongs, strict=True) if not b]
        assert rank == 1 + sum(s >= best for s in others)
        assert tie == (best in others)


@given(seed=st.integers(0, 10_000))
@CHECKS
def test_the_order_of_candidates_changes_nothing(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 3, (4, 7), generator=generator).float()
    positive = torch.rand(4, 7, generator=generator) < 0.4
    positive[:, 3] = True
    order = torch.randperm(7, generator=generator)
    assert torch.equal(ranks(scores, positive)[0], ranks(scores[:, order], positive[:, order])[0])


@pytest.mark.parametrize("k", [1, 3, 5, 100])
def test_chance_is_what_random_orders_give(k: int) -> None:
    positive = torch.zeros(3, 9, dtype=torch.bool)
    positive[0, :1], positive[1, :3], positive[2, :5] = True, True, True
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(6000, 3, 9, generator=generator)
    hits = [(ranks(draw, positive)[0] <= k).double().mean() for draw in draws]
    # in random orders a rank among k by "others above the best positive" is a positive among the first k
    assert abs(100 * float(torch.stack(hits).mean()) - recall_chance(positive, k)) < 1.5


def test_the_scores_are_both_directions_their_means_and_their_sum() -> None:
    positive = captions_of_images()
    scores = torch.randn(positive.shape)
    found = by_name(scores, positive)
    sides = [f"{side} R@{k}" for side in ("text", "image") for k in (1, 5, 10)]
    assert list(found) == [*sides, "R@1", "R@5", "R@10"]
    for k in (1, 5, 10):
        both = [found[f"{side} R@{k}"] for side in ("text", "image")]
        for field in ("value", "chance", "ties"):
            assert getattr(found[f"R@{k}"], field) == pytest.approx(sum(getattr(s, field) for s in both) / 2)
        assert found[f"R@{k}"].n == IMAGES + IMAGES * CAPTIONS
        # images are drawn for both directions at once, so the mean is no wider than the two moving together
        width = sum(s.high - s.low for s in both) / 2
        assert found[f"R@{k}"].high - found[f"R@{k}"].low <= width + 1e-9
    total = recalls(scores, scores.T, positive)[-1]
    assert total.name == "sum of R@k"
    assert total.value == pytest.approx(sum(found[side].value for side in sides))
    assert total.chance == pytest.approx(sum(found[side].chance for side in sides))
    assert total.low <= total.value <= total.high


def test_captions_are_resampled_with_their_image() -> None:
    found = by_name(torch.randn(IMAGES, IMAGES * CAPTIONS), captions_of_images())
    assert (found["text R@1"].n, found["text R@1"].units) == (IMAGES, IMAGES)
    assert (found["image R@1"].n, found["image R@1"].units) == (IMAGES * CAPTIONS, IMAGES)


def test_whole_units_are_resampled_so_that_copies_narrow_nothing() -> None:
    values = np.random.default_rng(0).integers(0, 2, 50).astype(float)
    copied = np.repeat(values, 20)
    alone = bootstrap(values, np.arange(50))
    assert bootstrap(copied, np.repeat(np.arange(50), 20)) == pytest.approx(alone)
    low, high = bootstrap(copied, np.arange(1000))
    assert high - low < 0.5 * (alone[1] - alone[0])


def test_the_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        values = generator.random(60) < 0.6
        low, high = bootstrap(values.astype(float), np.arange(60), seed=seed)
        covered += low <= 0.6 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_an_interval_is_the_same_each_time_and_none_is_made_of_nothing() -> None:
    values = np.arange(30) % 3 / 2
    assert bootstrap(values, np.arange(30)) == bootstrap(values, np.arange(30))
    with pytest.raises(ValueError, match="no values"):
        bootstrap(np.zeros(0), np.zeros(0))


def test_an_accuracy_counts_decisions_and_its_units() -> None:
    right = torch.tensor([[1, 1], [1, 0], [0, 0], [1, 1]]).double()
    score = accuracy_score("accuracy", right, units=torch.tensor([0, 0, 1, 1]), chance=50.0, ties=0.25)
    assert (score.value, score.n, score.units, score.chance, score.ties) == (62.5, 8, 2, 50.0, 25.0)
    assert score.low <= score.value <= score.high
