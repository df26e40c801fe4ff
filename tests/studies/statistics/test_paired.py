"""Contrasts and their intervals: known values, pairing, and what is refused."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from renaissance.errors import StudyError
from renaissance.studies.statistics.paired import bootstrap, contrast, estimate, t_test

SCORES = {"frozen": [[1.0, 3.0], [4.0, 4.0], [7.0, 9.0]], "unfrozen": [[1.0, 1.0], [2.0, 4.0], [5.0, 5.0]]}
DIFFERENCE = {"frozen": 1.0, "unfrozen": -1.0}
grids = arrays(np.float64, (4, 2), elements=st.floats(-100, 100, allow_nan=False))


def outcomes(generator: np.random.Generator, shape: tuple[int, ...]) -> dict[str, Any]:
    return {arm: generator.normal(size=shape) for arm in DIFFERENCE}


def test_a_contrast_is_the_weighted_sum_of_means_over_fine_tuning_seeds() -> None:
    assert contrast(SCORES, DIFFERENCE).tolist() == [1.0, 1.0, 3.0]
    assert contrast(SCORES, {"frozen": 0.5}).tolist() == [1.0, 2.0, 4.0]


def test_an_arm_without_weight_may_have_any_shape() -> None:
    assert contrast({**SCORES, "other": [[1.0]]}, DIFFERENCE).tolist() == [1.0, 1.0, 3.0]


@given(grids, grids)
@settings(max_examples=50, deadline=None)
def test_a_contrast_the_other_way_round_has_the_other_sign(first: Any, second: Any) -> None:
    one, other = {"a": 1.0, "b": -1.0}, {"a": -1.0, "b": 1.0}
    scores = {"a": first, "b": second}
    np.testing.assert_array_equal(contrast(scores, one), -contrast(scores, other))
    there, back = estimate(contrast(scores, one)), estimate(contrast(scores, other))
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


@given(grids, grids, st.permutations(range(4)))
@settings(max_examples=50, deadline=None)
def test_the_order_of_the_seeds_changes_nothing(first: Any, second: Any, order: list[int]) -> None:
    plain = estimate(contrast({"a": first, "b": second}, {"a": 1, "b": -1}))
    shuffled = estimate(contrast({"a": first[order], "b": second[order]}, {"a": 1, "b": -1}))
    assert (shuffled.mean, shuffled.low, shuffled.high) == pytest.approx((plain.mean, plain.low, plain.high), abs=1e-9)


@given(grids, st.floats(-50, 50))
@settings(max_examples=50, deadline=None)
def test_what_both_arms_share_changes_nothing(scores: Any, shared: float) -> None:
    scores = np.round(scores, 3)
    other = scores[:, ::-1] * [[1.0], [2.0], [3.0], [4.0]]
    plain = contrast({"a": scores, "b": other}, {"a": 1, "b": -1})
    moved = contrast({"a": scores + shared, "b": other + shared}, {"a": 1, "b": -1})
    np.testing.assert_allclose(moved, plain, atol=1e-9)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_the_interval_is_that_of_scipy(level: float) -> None:
    values = np.random.default_rng(0).normal(1, 2, 7)
    found, expected = estimate(values, level=level), stats.ttest_1samp(values, 0)
    interval = expected.confidence_interval(level)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert (found.t, found.df, found.n) == (pytest.approx(expected.statistic), 6, 7)
    assert (found.mean, found.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))


@pytest.mark.parametrize("above", [-1.0, 0.0, 2.5])
def test_the_t_test_is_that_of_scipy(above: float) -> None:
    values = np.random.default_rng(1).normal(1, 2, 5)
    expected = stats.ttest_1samp(values, above, alternative="greater").pvalue
    assert t_test(values, above=above) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("values", [[2.0, 2.0, 2.0], [0.1 + 0.2 - 0.3, 0.0, 0.0]])
def test_without_any_spread_nothing_is_shown(values: list[float]) -> None:
    found = estimate(values)
    assert (found.sd, found.t, found.low) == (0.0, None, found.high)
    assert t_test(values, above=-1) == 1.0


def test_facts_are_json() -> None:
    facts = estimate([1.0, 2.0, 4.0]).facts()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["n"] == 3


@pytest.mark.parametrize(
    ("scores", "weights", "message"),
    [
        (SCORES, {}, "The contrast weighs no arm"),
        (SCORES, {"frozn": 1}, "no scores of the arm 'frozn' that the contrast weighs; there are 'frozen', 'unfrozen'"),
        (SCORES, {"frozen": float("nan")}, "The weight of the arm 'frozen' is nan"),
        ({**SCORES, "frozen": [[1.0], [2.0]]}, DIFFERENCE, "'frozen' [2, 1] and 'unfrozen' [3, 2] do not pair"),
        (
            {**SCORES, "frozen": [1.0, 2.0, 3.0]},
            DIFFERENCE,
            "has shape [3]: it must be [pretraining seeds, fine-tuning",
        ),
        ({**SCORES, "frozen": [[], []]}, DIFFERENCE, "has shape [2, 0]"),
        ({**SCORES, "frozen": [[1.0, 2.0]]}, DIFFERENCE, "The arm 'frozen' has one pretraining seed"),
        ({**SCORES, "frozen": [[1.0, 2.0], [3.0]]}, DIFFERENCE, "is not a full array of numbers"),
        ({**SCORES, "frozen": [[1.0, 2.0], [3.0, None]]}, DIFFERENCE, "The arm 'frozen' holds nan at [1, 1]"),
        ({**SCORES, "frozen": [[1.0, float("inf")], [3.0, 1.0]]}, DIFFERENCE, "The arm 'frozen' holds inf at [0, 1]"),
    ],
)
def test_scores_that_do_not_pair_are_refused(scores: Any, weights: Any, message: str) -> None:
    with pytest.raises(StudyError, match=re.escape(message)):
        contrast(scores, weights)


@pytest.mark.parametrize("values", [[1.0], [], [1.0, float("nan")], [[1.0, 2.0]]])
def test_differences_must_be_at_least_two_numbers(values: Any) -> None:
    for function in (estimate, t_test):
        with pytest.raises(StudyError, match="The differences"):
            function(values)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, float("nan")])
def test_a_level_is_between_0_and_1(level: float) -> None:
    with pytest.raises(StudyError, match="The level of the interval is"):
        estimate([1.0, 2.0], level=level)


# --- bootstrap ------------------------------------------------------------------------------------------------------


def test_the_bootstrap_repeats_with_its_seed_and_moves_with_another() -> None:
    drawn = outcomes(np.random.default_rng(0), (4, 2, 30))
    assert bootstrap(drawn, DIFFERENCE, seed=1) == bootstrap(drawn, DIFFERENCE, seed=1)
    assert bootstrap(drawn, DIFFERENCE, seed=1) != bootstrap(drawn, DIFFERENCE, seed=2)


def test_what_seeds_and_items_share_between_arms_does_not_widen_the_bootstrap() -> None:
    generator = np.random.default_rng(0)
    drawn = outcomes(generator, (5, 2, 30))
    shared = (
        10 * generator.normal(size=(5, 1, 1)) + 10 * generator.normal(size=30) + 5 * generator.normal(size=(5, 2, 1))
    )
    moved = {arm: array + shared for arm, array in drawn.items()}
    assert bootstrap(moved, DIFFERENCE, seed=0) == pytest.approx(bootstrap(drawn, DIFFERENCE, seed=0), abs=1e-9)


def test_the_bootstrap_of_items_alone_has_the_width_of_their_standard_error() -> None:
    items = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap({"a": np.broadcast_to(items, (3, 2, 400))}, {"a": 1}, seed=0, resamples=4000)
    assert (low + high) / 2 == pytest.approx(items.mean(), abs=0.01)
    assert high - low == pytest.approx(2 * 1.96 * items.std() / 20, rel=0.06)


def test_the_bootstrap_of_seeds_alone_has_the_width_of_resampled_means() -> None:
    seeds = np.random.default_rng(0).normal(size=40)
    low, high = bootstrap({"a": np.broadcast_to(seeds[:, None, None], (40, 2, 5))}, {"a": 1}, seed=0, resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * seeds.std() / np.sqrt(40), rel=0.06)


def test_fine_tuning_seeds_are_drawn_anew_in_each_draw_of_a_pretraining_seed() -> None:
    fine = np.random.default_rng(0).normal(size=30)
    scores = np.broadcast_to((fine - fine.mean())[None, :, None], (20, 30, 5))  # alike in each pretraining seed
    low, high = bootstrap({"a": scores}, {"a": 1}, seed=0, resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * fine.std() / np.sqrt(20 * 30), rel=0.06)


def test_items_of_one_unit_are_drawn_together() -> None:
    image = np.random.default_rng(0).normal(size=80)
    captions = {"a": np.broadcast_to(np.repeat(image, 5), (3, 1, 400))}
    one = bootstrap({"a": np.broadcast_to(image, (3, 1, 80))}, {"a": 1}, seed=0)
    units = [f"picture {index:02}" for index in np.repeat(np.arange(80), 5)]
    assert bootstrap(captions, {"a": 1}, seed=0, units=units) == pytest.approx(one)
    alone = bootstrap(captions, {"a": 1}, seed=0)
    assert alone[1] - alone[0] < 0.6 * (one[1] - one[0])


def test_units_of_unequal_size_weigh_by_their_items() -> None:
    values = np.array([0.0, 0.0, 0.0, 4.0])
    low, high = bootstrap({"a": np.broadcast_to(values, (2, 1, 4))}, {"a": 1}, seed=0, units=[0, 0, 0, 1])
    assert (low, high) == (0.0, 4.0)
    resampled = {bootstrap({"a": np.broadcast_to(values, (2, 1, 4))}, {"a": 1}, seed=0, units=[0, 0, 0, 1], level=0.2)}
    assert resampled == {(1.0, 1.0)}  # one of each unit, in half of the resamples: the mean over items


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": [0, 1]}, "There are 3 items and labels of shape [2]"),
        ({"units": [0, 0, 0]}, "All items are of one unit"),
        ({"resamples": 10}, "10 resamples give no percentiles: draw 100 at least"),
        ({"level": 95}, "The level of the interval is 95"),
        ({"weights": {"c": 1}}, "There are no scores of the arm 'c'"),
    ],
)
def test_a_bootstrap_that_says_nothing_is_refused(change: dict[str, Any], message: str) -> None:
    arguments = {"outcomes": {"a": np.ones((2, 1, 3))}, "weights": {"a": 1.0}, "seed": 0, **change}
    with pytest.raises(StudyError, match=re.escape(message)):
        bootstrap(**arguments)
