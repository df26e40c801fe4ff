"""Strict choices, units that no order changes, and macro averages with their intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from renaissance.toolkit.agreement import agreement_score, f1, pearson
from renaissance.toolkit.metrics import accuracy_score, chosen, macro_score, numbered


def test_a_tie_chooses_a_wrong_candidate() -> None:
    scores = torch.tensor([[2.0, 2.0, 1.0], [2.0, 2.0, 1.0], [0.0, 1.0, 2.0], [3.0, 3.0, 3.0]])
    choice, tied = chosen(scores, torch.tensor([0, 1, 2, 2]))
    assert choice.tolist() == [1, 0, 2, 0]
    assert tied.tolist() == [True, True, False, True]


def test_missing_candidates_are_never_chosen() -> None:
    scores = torch.tensor([[-5.0, float("-inf")], [-5.0, -4.0]])
    assert chosen(scores, torch.tensor([0, 0]))[0].tolist() == [0, 1]


def test_units_are_numbered_by_key_and_not_by_order() -> None:
    assert numbered(["b", "a", "b", "c"]).tolist() == [1, 0, 1, 2]


def test_a_macro_average_counts_each_group_once() -> None:
    right = torch.tensor([1.0, 1, 1, 0])
    score = macro_score("m", right, torch.tensor([0, 0, 0, 5]), units=torch.arange(4), chance=50, ties=0)
    assert (score.value, score.n, score.units) == (50, 4, 4)


def test_the_interval_of_a_macro_average_is_that_of_plain_resampling() -> None:
    generator = np.random.default_rng(1)
    groups, units = generator.integers(0, 3, 200), generator.integers(0, 60, 200)
    right = (generator.random(200) < 0.3 + 0.2 * groups).astype(float)
    score = macro_score("m", torch.tensor(right), torch.tensor(groups), units=torch.tensor(units), chance=50, ties=0)
    known, means = np.unique(units), []
    for _ in range(2000):
        rows = np.concatenate([np.flatnonzero(units == unit) for unit in generator.choice(known, len(known))])
        means.append(np.mean([right[rows][groups[rows] == group].mean() for group in np.unique(groups[rows])]))
    low, high = np.percentile(means, [2.5, 97.5])
    assert score.low / 100 == pytest.approx(low, abs=0.015)
    assert score.high / 100 == pytest.approx(high, abs=0.015)


def test_one_group_has_the_interval_of_an_accuracy() -> None:
    right = (torch.rand(300, generator=torch.Generator().manual_seed(0)) < 0.7).double()
    units = torch.arange(300)
    macro = macro_score("m", right, torch.zeros(300, dtype=torch.int64), units=units, chance=50, ties=0)
    plain = accuracy_score("m", right, units=units, chance=50, ties=0)
    assert macro.value == pytest.approx(plain.value)
    assert (macro.low, macro.high) == pytest.approx((plain.low, plain.high))


def test_units_are_resampled_whole() -> None:
    said = torch.tensor([1.0, 1, 0, 0] * 40)
    alone = agreement_score("f", f1, said, said * 0 + 1, units=torch.arange(160), chance=0, ties=0)
    together = agreement_score("f", f1, said, said * 0 + 1, units=torch.arange(160) // 16, chance=0, ties=0)
    assert alone.low < alone.value < alone.high
    assert together.low == together.value == together.high
    assert together.units == 10


def test_the_interval_of_a_correlation_holds_its_value() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.randn(400, generator=generator)
    said = true + torch.randn(400, generator=generator)
    score = agreement_score("p", pearson, said, true, units=torch.arange(400), chance=0, ties=0)
    assert score.value == pytest.approx(100 * np.corrcoef(said, true)[0, 1], abs=1e-4)
    assert score.low < score.value < score.high
    # the textbook interval, by Fisher's transformation
    z, half = np.arctanh(score.value / 100), 1.96 / np.sqrt(397)
    assert score.low == pytest.approx(100 * np.tanh(z - half), abs=1.5)
    assert score.high == pytest.approx(100 * np.tanh(z + half), abs=1.5)
