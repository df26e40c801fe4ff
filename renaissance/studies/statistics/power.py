"""How many pretraining seeds a margin takes, and what margin a number of seeds can reach.

Margins and effects are in standard deviations of the paired difference over pretraining seeds. Everything is exact for
normal differences: of the t tests by the noncentral t distribution, of two one-sided tests by one integral.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from typing import Literal

from scipy import integrate, optimize, stats

from renaissance.errors import StudyError
from renaissance.studies.statistics.arrays import checked_share

Kind = Literal["equivalence", "superiority", "no-loss"]

MOST_SEEDS = 100_000
# Chance of a standard deviation outside the range that is integrated over.
TAIL = 1e-14


def power_of_t(seeds: int, effect: float, *, alpha: float = 0.05) -> float:
    """Return the power of the one-sided paired t test if the true mean lies `effect` above the bound.

    Superiority: `effect` is the true difference. No loss: it is the margin, if truly nothing is lost.

    Raises:
        StudyError: fewer than two seeds, or alpha is not between 0 and 0.5.
    """
    df, critical = _critical(seeds, alpha)
    return float(stats.nct.sf(critical, df, math.sqrt(seeds) * effect))


def power_of_tost(seeds: int, margin: float, *, true: float = 0.0, alpha: float = 0.05) -> float:
    """Return the power of the paired TOST with bounds -margin and margin if the true mean is `true`.

    Equivalence is shown where |mean| + t s / sqrt(n) <= margin. So for each s the mean must fall into a known range; s
    follows a chi distribution and does not depend on the mean, so the chance of that is integrated over s.

    Raises:
        StudyError: fewer than two seeds, or alpha is not between 0 and 0.5.
    """
    df, critical = _critical(seeds, alpha)
    reach, shift = math.sqrt(seeds) * margin, math.sqrt(seeds) * true
    spread = stats.chi(df, scale=1 / math.sqrt(df))

    def shown(s: float) -> float:
        half = reach - critical * s
        return float((stats.norm.cdf(half - shift) - stats.norm.cdf(-half - shift)) * spread.pdf(s))

    low, high = spread.ppf(TAIL), min(reach / critical, spread.isf(TAIL))
    return float(integrate.quad(shown, low, high, epsabs=1e-10, limit=200)[0]) if low < high else 0.0


def seeds_needed(margin_in_sd: float, *, power: float = 0.8, alpha: float = 0.05, kind: Kind = "equivalence") -> int:
    """Return the least number of pretraining seeds with at least this power.

    Args:
        margin_in_sd: for equivalence and no loss the margin, if the true difference is 0; for superiority the true
            difference that is to be found.
        power: the chance to show what is true.
        alpha: the level of each one-sided test.
        kind: the test.

    Raises:
        StudyError: the margin is not above 0, takes more than 100,000 seeds, or a share or the kind is wrong.
    """
    if not 0 < margin_in_sd < math.inf:
        raise StudyError(f"The margin is {margin_in_sd} standard deviations: give a number above 0.")
    reached = _power(kind, alpha)
    checked_share(power, "The power")
    if reached(MOST_SEEDS, margin_in_sd) < power:
        raise StudyError(
            f"A margin of {margin_in_sd} standard deviations takes more than {MOST_SEEDS:,} seeds: "
            "no study has so many; choose a wider one, or call the comparison exploratory."
        )
    seeds = range(2, MOST_SEEDS + 1)
    return seeds[bisect_left(seeds, power, key=lambda count: reached(count, margin_in_sd))]


def margin_reached(seeds: int, *, power: float = 0.8, alpha: float = 0.05, kind: Kind = "equivalence") -> float:
    """Return the least margin, in standard deviations, that so many seeds show with this power.

    Raises:
        StudyError: fewer than two seeds, or a share or the kind is wrong.
    """
    reached = _power(kind, alpha)
    checked_share(power, "The power")
    high = 1.0
    while reached(seeds, high) < power:
        high *= 2
    return float(optimize.brentq(lambda margin: reached(seeds, margin) - power, 0.0, high, xtol=1e-9))


def _power(kind: Kind, alpha: float) -> Callable[[int, float], float]:
    """Return the power by seeds and margin."""
    match kind:
        case "equivalence":
            return lambda seeds, margin: power_of_tost(seeds, margin, alpha=alpha)
        case "superiority" | "no-loss":
            return lambda seeds, margin: power_of_t(seeds, margin, alpha=alpha)
        case _:
            raise StudyError(f"There is no test '{kind}': choose equivalence, superiority or no-loss.")


def _critical(seeds: int, alpha: float) -> tuple[int, float]:
    """Return the degrees of freedom, and what t must exceed."""
    if seeds < 2:
        raise StudyError(f"The power is asked for {seeds} pretraining seeds: a paired test takes two at least.")
    if not 0 < alpha < 0.5:
        raise StudyError(f"The level of the test is {alpha}: give a number between 0 and 0.5, such as 0.05.")
    return seeds - 1, float(stats.t.isf(alpha, seeds - 1))
