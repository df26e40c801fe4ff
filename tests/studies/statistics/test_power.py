"""Power: the figures that studies are planned by, against statsmodels, limits and each other."""

from __future__ import annotations

import math
from typing import Any

import pytest
from scipy import integrate, stats
from statsmodels.stats.power import TTestPower

from renaissance.errors import StudyError
from renaissance.studies.statistics.power import margin_reached, power_of_t, power_of_tost, seeds_needed

KINDS = ("equivalence", "superiority", "no-loss")


def test_ten_seeds_reach_a_margin_of_1_and_three_one_of_2_7() -> None:
    assert margin_reached(3) == pytest.approx(2.7, abs=0.05)
    assert margin_reached(10) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("seeds", [2, 3, 10, 200])
@pytest.mark.parametrize("effect", [0.05, 0.5, 1.5])
def test_the_power_of_the_t_test_is_that_of_statsmodels(seeds: int, effect: float) -> None:
    expected = TTestPower().power(effect, seeds, 0.05, alternative="larger")
    assert power_of_t(seeds, effect) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("seeds", "margin", "true"), [(3, 2.66, 0.0), (5, 1.0, 0.3), (10, 1.0, -1.0), (40, 0.4, 0.1)])
def test_the_power_of_the_tost_is_that_of_an_integral_over_means_instead(
    seeds: int, margin: float, true: float
) -> None:
    """For each mean the standard deviation must be below a bound: the other order of integration."""
    df = seeds - 1
    critical = stats.t.isf(0.05, df)

    def shown(mean: float) -> float:
        bound = (margin - abs(mean)) * math.sqrt(seeds) / critical
        return float(stats.norm.pdf(mean, true, 1 / math.sqrt(seeds)) * stats.chi2.cdf(df * bound**2, df))

    expected = integrate.quad(shown, -margin, margin, points=[0], limit=200)[0]
    assert power_of_tost(seeds, margin, true=true) == pytest.approx(expected, abs=1e-8)


def test_the_tost_keeps_its_level_at_its_edge() -> None:
    for seeds in (3, 10, 100):
        assert power_of_tost(seeds, 1.0, true=1.0) <= 0.05
        assert power_of_tost(seeds, 50.0, true=50.0) == pytest.approx(0.05, abs=1e-6)


def test_the_tost_is_nearly_two_independent_tests_with_many_seeds() -> None:
    one = power_of_t(100_000, 0.01)
    assert power_of_tost(100_000, 0.01) == pytest.approx(2 * one - 1, abs=1e-6)


def test_a_margin_that_no_interval_fits_into_has_no_power() -> None:
    assert power_of_tost(3, 1e-9) == pytest.approx(0, abs=1e-9)
    assert power_of_tost(3, 0.0) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("margin", [0.1, 0.5, 1.0, 2.7, 40.0])
def test_the_seeds_needed_are_the_fewest_that_suffice(kind: Any, margin: float) -> None:
    power = power_of_tost if kind == "equivalence" else power_of_t
    seeds = seeds_needed(margin, kind=kind)
    assert power(seeds, margin) >= 0.8
    assert seeds == 2 or power(seeds - 1, margin) < 0.8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seeds", [2, 3, 10, 100])
def test_the_margin_reached_has_just_the_power(kind: Any, seeds: int) -> None:
    margin = margin_reached(seeds, kind=kind, power=0.9)
    power = power_of_tost if kind == "equivalence" else power_of_t
    assert power(seeds, margin) == pytest.approx(0.9, abs=1e-6)
    assert seeds_needed(margin + 1e-6, kind=kind, power=0.9) == seeds


def test_superiority_and_no_loss_take_the_same_seeds_and_equivalence_more() -> None:
    assert seeds_needed(0.5, kind="superiority") == seeds_needed(0.5, kind="no-loss") < seeds_needed(0.5)


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan"), float("inf")])
def test_a_margin_is_above_0(margin: float) -> None:
    with pytest.raises(StudyError, match="The margin is"):
        seeds_needed(margin)


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(StudyError, match=r"A margin of 0\.001 standard deviations takes more than 100,000 seeds"):
        seeds_needed(0.001)
    with pytest.raises(StudyError, match="There is no test 'magic': choose equivalence, superiority or no-loss"):
        seeds_needed(1.0, kind="magic")  # type: ignore[arg-type]
    with pytest.raises(StudyError, match="The power is 80"):
        seeds_needed(1.0, power=80)
    with pytest.raises(StudyError, match=r"The level of the test is 0\.7"):
        margin_reached(5, alpha=0.7)
    with pytest.raises(StudyError, match="The power is asked for 1 pretraining seeds"):
        margin_reached(1)
