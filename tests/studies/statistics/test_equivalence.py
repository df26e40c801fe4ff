"""Tests of claims: known values, what a share of a gain means, and claims that are void."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from renaissance.errors import StudyError
from renaissance.studies.statistics.equivalence import noninferior, share_of_gain, superior, tost

VALUES = np.random.default_rng(3).normal(0.2, 1.0, 8)
NAMES: dict[str, Any] = {"arm": "frozen", "reference": "unfrozen", "floor": "no-vlp"}


def scores(frozen: float, unfrozen: float, floor: float, *, seed: int = 0, sd: float = 0.5) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    means = {"frozen": frozen, "unfrozen": unfrozen, "no-vlp": floor}
    return {arm: mean + sd * generator.normal(size=(6, 2)) for arm, mean in means.items()}


def test_no_loss_is_a_t_test_against_minus_the_margin() -> None:
    expected = stats.ttest_1samp(VALUES, -0.7, alternative="greater").pvalue
    assert noninferior(VALUES, 0.7).p == pytest.approx(expected)
    assert superior(VALUES).p == pytest.approx(stats.ttest_1samp(VALUES, 0, alternative="greater").pvalue)


def test_tost_is_that_of_statsmodels() -> None:
    found, (p, low, high) = tost(VALUES, -1, 1.2), DescrStatsW(VALUES).ttost_mean(-1, 1.2)
    assert (found.p, found.p_low, found.p_high) == pytest.approx((p, low[1], high[1]))


def test_tost_is_two_one_sided_t_tests() -> None:
    found = tost(VALUES, -1, 1.2)
    assert found.p_low == pytest.approx(stats.ttest_1samp(VALUES, -1, alternative="greater").pvalue)
    assert found.p_high == pytest.approx(stats.ttest_1samp(VALUES, 1.2, alternative="less").pvalue)


@given(st.integers(0, 1000), st.floats(0.1, 3), st.sampled_from([0.01, 0.05, 0.2]))
@settings(max_examples=80, deadline=None)
def test_what_is_shown_is_what_the_interval_says(seed: int, margin: float, alpha: float) -> None:
    values = np.random.default_rng(seed).normal(0, 1, 6)
    one, both = noninferior(values, margin, alpha=alpha), tost(values, -margin, margin, alpha=alpha)
    assert one.shown == (one.estimate.low >= -margin)
    assert both.shown == (both.estimate.low >= -margin and both.estimate.high <= margin)


@given(st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_equivalence_is_the_same_both_ways_round(seed: int) -> None:
    values = np.random.default_rng(seed).normal(0.3, 1, 5)
    there, back = tost(values, -1, 2), tost(-values, -2, 1)
    assert (there.p_low, there.p_high) == pytest.approx((back.p_high, back.p_low))


def test_differences_without_spread_show_nothing() -> None:
    assert not noninferior([0.0, 0.0, 0.0], 1).shown
    assert not tost([0.0, 0.0, 0.0], -1, 1).shown


def test_the_share_is_tested_in_the_contrast_that_holds_the_gain() -> None:
    found = share_of_gain(scores(69.5, 70, 60), **NAMES, share=0.2)
    means = {arm: array.mean(axis=1) for arm, array in scores(69.5, 70, 60).items()}
    frozen, unfrozen, floor = (means[arm] for arm in ("frozen", "unfrozen", "no-vlp"))
    lower = frozen - unfrozen + 0.2 * (unfrozen - floor)
    upper = frozen - unfrozen - 0.2 * (unfrozen - floor)
    assert found.lower.p == pytest.approx(stats.ttest_1samp(lower, 0, alternative="greater").pvalue)
    assert found.upper.p == pytest.approx(stats.ttest_1samp(upper, 0, alternative="less").pvalue)
    assert found.gain.p == pytest.approx(stats.ttest_1samp(unfrozen - floor, 0, alternative="greater").pvalue)
    assert found.difference.mean == pytest.approx((frozen - unfrozen).mean())
    assert found.kept == pytest.approx((frozen - floor).mean() / (unfrozen - floor).mean())
    assert found.no_loss_p == max(found.gain.p, found.lower.p)
    assert found.equivalence_p == max(found.gain.p, found.lower.p, found.upper.p)


def test_little_lost_of_a_large_gain_is_no_loss() -> None:
    found = share_of_gain(scores(70, 70, 60), **NAMES)
    assert (found.void, found.no_loss, found.equivalent) == (False, True, True)
    assert found.kept == pytest.approx(1, abs=0.1)


def test_more_than_the_share_lost_is_not_no_loss() -> None:
    found = share_of_gain(scores(66, 70, 60), **NAMES)
    assert (found.void, found.no_loss, found.equivalent) == (False, False, False)
    assert share_of_gain(scores(66, 70, 60), **NAMES, share=0.8).no_loss


def test_an_arm_that_wins_much_has_no_loss_and_is_not_the_same() -> None:
    found = share_of_gain(scores(75, 70, 60), **NAMES)
    assert (found.no_loss, found.equivalent) == (True, False)


def test_a_claim_is_void_if_the_reference_does_not_beat_the_floor() -> None:
    found = share_of_gain(scores(75, 60, 60), **NAMES)  # frozen wins by far, of a gain that is none
    assert found.lower.shown
    assert (found.void, found.no_loss, found.equivalent) == (True, False, False)
    below = share_of_gain(scores(70, 60, 70), **NAMES)
    assert (below.void, below.no_loss) == (True, False)


def test_the_error_of_the_gain_counts() -> None:
    certain, noisy = scores(69, 70, 60), scores(69, 70, 60)
    noisy["no-vlp"] = noisy["no-vlp"] + 8 * np.array([-1, 1, -1, 1, -1, 1])[:, None]
    assert noisy["no-vlp"].mean() == pytest.approx(certain["no-vlp"].mean())
    assert share_of_gain(noisy, **NAMES).lower.p > 4 * share_of_gain(certain, **NAMES).lower.p


@given(st.permutations(range(6)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_seeds_changes_nothing(order: list[int]) -> None:
    drawn = scores(69, 70, 60)
    plain = share_of_gain(drawn, **NAMES)
    shuffled = share_of_gain({arm: array[order] for arm, array in drawn.items()}, **NAMES)
    assert (shuffled.no_loss_p, shuffled.equivalence_p) == pytest.approx((plain.no_loss_p, plain.equivalence_p))


def test_facts_are_json_and_say_what_is_shown() -> None:
    for result in (superior(VALUES), tost(VALUES, -1, 1), share_of_gain(scores(70, 70, 60), **NAMES)):
        assert json.loads(json.dumps(result.facts(), allow_nan=False)) == result.facts()
    facts = share_of_gain(scores(70, 70, 60), **NAMES).facts()
    assert facts["no_loss"]
    assert facts["gain"]["shown"]
    assert not facts["void"]


def test_equal_arms_keep_no_share_that_could_be_told() -> None:
    alike = {arm: np.array([[1.0], [2.0]]) for arm in NAMES.values()}
    found = share_of_gain(alike, **NAMES)
    assert found.kept is None
    assert found.facts()["kept"] is None
    assert found.void


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan"), float("inf")])
def test_a_margin_is_above_0(margin: float) -> None:
    with pytest.raises(StudyError, match="The margin of no loss is"):
        noninferior(VALUES, margin)


@pytest.mark.parametrize(("low", "high"), [(1, -1), (1, 1), (float("nan"), 1), (-1, float("inf"))])
def test_bounds_are_finite_and_in_order(low: float, high: float) -> None:
    with pytest.raises(StudyError, match="The bounds of equivalence are"):
        tost(VALUES, low, high)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.5}, "The share of the gain is 1.5: give a number between 0 and 1"),
        ({"alpha": 0.5}, "The level of the test is 0.5: give a number between 0 and 0.5"),
        ({"floor": "frozen"}, "The arms 'frozen', 'unfrozen' and 'frozen' are to be compared: name three different"),
        ({"floor": "none"}, "There are no scores of the arm 'none'"),
    ],
)
def test_a_share_test_that_says_nothing_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=re.escape(message)):
        share_of_gain(scores(70, 70, 60), **{**NAMES, **change})
