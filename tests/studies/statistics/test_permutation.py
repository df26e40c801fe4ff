"""The sign-flip test: hand-made cases, scipy's, and what few seeds cannot show."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from renaissance.errors import StudyError
from renaissance.studies.statistics.permutation import least_p, sign_flip

whole = st.lists(st.integers(-20, 20).map(float), min_size=2, max_size=8)


def test_all_patterns_are_counted_up_to_16_seeds() -> None:
    found = sign_flip([1.0, 2.0, 3.0])
    assert (found.p, found.patterns, found.exact) == (1 / 8, 8, True)
    assert sign_flip([1.0, 2.0, -3.0]).p == 5 / 8  # sums: 6, 4, 2, 0, 0, -2, -4, -6
    assert sign_flip(np.ones(16)).p == 2**-16


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_p_is_that_of_scipy(alternative: str) -> None:
    values = np.random.default_rng(0).normal(0.5, 1, 9)
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative=alternative
    )
    assert sign_flip(values, alternative=alternative).p == pytest.approx(expected.pvalue)  # type: ignore[arg-type]


def test_three_seeds_cannot_confirm_anything() -> None:
    found = sign_flip([50.0, 51.0, 52.0])
    assert found.p == found.least_p == 0.125
    assert found.least_p > 0.05
    assert sign_flip([50.0, 51.0, 52.0, 53.0, 54.0]).least_p < 0.05


@pytest.mark.parametrize(("seeds", "one", "two"), [(2, 0.25, 0.5), (3, 0.125, 0.25), (5, 1 / 32, 1 / 16)])
def test_the_least_p_is_reached_where_all_seeds_agree(seeds: int, one: float, two: float) -> None:
    values = np.arange(1.0, seeds + 1)
    assert sign_flip(values).p == least_p(seeds) == one
    assert sign_flip(-values, alternative="less").p == least_p(seeds, "less") == one
    assert sign_flip(values, alternative="two-sided").p == least_p(seeds, "two-sided") == two


def test_beyond_16_seeds_random_patterns_come_close_and_never_say_0() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(0.3, 1, 17)
    signs = 1 - 2 * (np.arange(2**17)[:, None] >> np.arange(17) & 1)
    exact = np.mean(signs @ values >= values.sum() - 1e-9)
    found = sign_flip(values, seed=1, patterns=20_000)
    assert not found.exact
    assert abs(found.p - exact) < 5 * np.sqrt(exact * (1 - exact) / 20_000)
    assert sign_flip(np.ones(40), patterns=999).p == sign_flip(np.ones(40), patterns=999).least_p == 1 / 1000
    assert sign_flip(values, seed=1) == sign_flip(values, seed=1)


@given(whole, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_seeds_changes_nothing(values: list[float], seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(values)
    assert sign_flip(shuffled).p == sign_flip(values).p


@given(whole)
@settings(max_examples=60, deadline=None)
def test_less_is_greater_of_what_is_turned_round(values: list[float]) -> None:
    turned = [-value for value in values]
    assert sign_flip(values, alternative="less").p == sign_flip(turned).p
    assert sign_flip(values, alternative="two-sided").p == sign_flip(turned, alternative="two-sided").p


def test_equal_sums_count_as_extreme_whatever_the_rounding() -> None:
    assert sign_flip([0.1, 0.2, -0.3]).p == 5 / 8


def test_without_any_difference_p_is_1() -> None:
    assert sign_flip([0.0, 0.0, 0.0]).p == 1.0


def test_facts_are_json() -> None:
    assert json.loads(json.dumps(sign_flip([1.0, 2.0]).facts()))["least_p"] == 0.25


def test_what_cannot_be_tested_is_refused() -> None:
    with pytest.raises(StudyError, match="one pretraining seed"):
        sign_flip([1.0])
    with pytest.raises(StudyError, match="There is no alternative 'bigger': choose greater, less or two-sided"):
        sign_flip([1.0, 2.0], alternative="bigger")  # type: ignore[arg-type]
    with pytest.raises(StudyError, match="5 sign patterns resolve no p value: draw 99 at least"):
        sign_flip([1.0, 2.0], patterns=5)
