"""Contrasts of arms, pair by pair on the same seeds, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from renaissance.errors import StudyError
from renaissance.studies.statistics.arrays import (
    ROUNDING,
    Floats,
    checked_arms,
    checked_array,
    checked_share,
    json_facts,
)

# Resamples that are worked on at a time: their unit counts take 8 MB at 4,000 units.
CHUNK = 250
# Fewer have no 2.5% tail to speak of.
LEAST_RESAMPLES = 100


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean of a contrast over the pretraining seeds, and its t interval.

    Attributes:
        mean: the mean over the seeds.
        sd: the standard deviation over the seeds, with n - 1.
        n: the number of pretraining seeds.
        low: the lower end of the interval.
        high: the upper end of the interval.
        t: the mean over its standard error; None where all seeds agree to the last digit: no spread was seen, so the
            interval has no width, and no test that is built on it rejects anything.
        df: degrees of freedom, n - 1.
        level: the share of intervals that hold the true mean, if seeds scatter as a normal distribution.
    """

    mean: float
    sd: float
    n: int
    low: float
    high: float
    t: float | None
    df: int
    level: float

    def facts(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        facts: dict[str, Any] = json_facts(asdict(self))
        return facts


def contrast(scores: Mapping[str, ArrayLike], weights: Mapping[str, float]) -> Floats:
    """Return [P]: for each pretraining seed the weighted sum of the arms' means over fine-tuning seeds.

    Args:
        scores: [P, F] of each arm; entry [p, f] of every arm comes from the same pair of seeds.
        weights: of the arms in the sum, such as `{"frozen": 1, "unfrozen": -1}`.

    Raises:
        StudyError: an arm is missing, the arms do not pair, a score is not finite, or there are fewer than two seeds.
    """
    arms = checked_arms(scores, weights, axes=2)
    return _weighted({arm: array.mean(axis=1) for arm, array in arms.items()}, weights)


def estimate(differences: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Return the mean of differences [P] with its two-sided t interval.

    The interval is about new seeds on the same test items: it does not say how other items would have come out.

    Raises:
        StudyError: a difference is not finite, there are fewer than two, or the level is not between 0 and 1.
    """
    values = checked_array(differences, "The differences", axes=1)
    checked_share(level, "The level of the interval")
    mean, n = float(values.mean()), len(values)
    if not spreads(values):
        return Estimate(mean, 0.0, n, mean, mean, None, n - 1, level)
    sd = float(values.std(ddof=1))
    error = sd / math.sqrt(n)
    half = error * float(special.stdtrit(n - 1, (1 + level) / 2))
    return Estimate(mean, sd, n, mean - half, mean + half, mean / error, n - 1, level)


def spreads(values: Floats) -> bool:
    """Return whether values [P] differ by more than the rounding of sums."""
    return float(np.ptp(values)) > ROUNDING * max(1.0, float(np.abs(values).max()))


def t_test(differences: ArrayLike, *, above: float = 0.0) -> float:
    """Return the p value of "the true mean of differences [P] is at most `above`"; 1 if no spread was seen.

    Raises:
        StudyError: a difference is not finite, or there are fewer than two.
    """
    values = checked_array(differences, "The differences", axes=1)
    if not spreads(values):
        return 1.0
    t = (values.mean() - above) / (values.std(ddof=1) / math.sqrt(len(values)))
    return float(special.stdtr(len(values) - 1, -t))


def bootstrap(
    outcomes: Mapping[str, ArrayLike],
    weights: Mapping[str, float],
    *,
    seed: int,
    units: ArrayLike | None = None,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile interval of a contrast, from a hierarchical bootstrap.

    Each resample draws P pretraining seeds, F fine-tuning seeds in each draw of one, and as many units as there are,
    all with replacement and the same for all arms. So the interval is about new seeds *and* new items.

    With few seeds it is too narrow: means of resampled seeds scatter by sqrt((P - 1) / P) of what they should, and
    percentiles know no t distribution. Where pretraining seeds dominate, an interval of 95% covers about 75% at 3
    seeds, 85% at 5, 90% at 10 and 93% at 20; somewhat more where fine-tuning seeds scatter too, which count with the
    pretraining seeds and once more. docs/power.md has what was measured. Show it beside the t interval; decide nothing
    by it.

    Args:
        outcomes: [P, F, U] of each arm, one outcome an item; entry [p, f, u] of every arm has the same seeds and item.
        weights: of the arms, as in `contrast`.
        seed: of the resampling.
        units: [U] labels; items of one label (captions of one image) are drawn together. None: each item is a unit.
        resamples: how many.
        level: the nominal coverage.

    Raises:
        StudyError: as `contrast`; or labels are not one an item, there is one unit, or fewer than 100 resamples.
    """
    arms = checked_arms(outcomes, weights, axes=3)
    checked_share(level, "The level of the interval")
    if resamples < LEAST_RESAMPLES:
        raise StudyError(f"{resamples} resamples give no percentiles: draw {LEAST_RESAMPLES} at least.")
    sums, sizes = _by_unit(_weighted(arms, weights), units)
    generator = np.random.default_rng(seed)
    means = [_resampled(sums, sizes, min(CHUNK, resamples - done), generator) for done in range(0, resamples, CHUNK)]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _weighted(arms: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    total: Floats = np.sum([weights[arm] * array for arm, array in arms.items()], axis=0)
    return total


def _by_unit(difference: Floats, units: ArrayLike | None) -> tuple[Floats, Floats]:
    """Return the sums [P, F, G] over the items of each unit, and the sizes [G] of the units."""
    items = difference.shape[2]
    labels = np.arange(items) if units is None else np.asarray(units)
    if labels.shape != (items,):
        raise StudyError(f"There are {items} items and labels of shape {list(labels.shape)}: give each item its unit.")
    _, unit, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise StudyError("All items are of one unit: without a second one nothing is known of the spread over units.")
    if len(sizes) == items:  # nothing to add up, and order does not matter
        return difference, np.ones(items)
    sums = np.zeros((len(sizes), *difference.shape[:2]))
    np.add.at(sums, unit, np.moveaxis(difference, 2, 0))
    return np.moveaxis(sums, 0, 2), sizes.astype(np.float64)


def _resampled(sums: Floats, sizes: Floats, resamples: int, generator: np.random.Generator) -> Floats:
    """Return the means [resamples] of the difference."""
    seeds, fine, units = sums.shape
    drawn = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)  # [R, P]
    # a seed drawn k times draws its fine-tuning seeds k times over, which together is one multinomial of k F
    runs = generator.multinomial(drawn * fine, np.full(fine, 1 / fine)).reshape(resamples, -1)  # [R, P F]
    picks = generator.integers(units, size=(resamples, units)) + units * np.arange(resamples)[:, None]
    counts = np.bincount(picks.ravel(), minlength=resamples * units).reshape(resamples, units)  # [R, G]
    totals = np.einsum("rg,rg->r", runs.astype(np.float64) @ sums.reshape(seeds * fine, units), counts)
    means: Floats = totals / (seeds * fine * (counts @ sizes))
    return means
