"""Tests of claims: better, no worse than by a margin, the same within margins, and no loss of a share of a gain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from statsmodels.stats.weightstats import DescrStatsW

from renaissance.errors import StudyError
from renaissance.studies.statistics.arrays import checked_array, checked_share, json_facts
from renaissance.studies.statistics.paired import Estimate, contrast, estimate, spreads, t_test


@dataclass(frozen=True, slots=True)
class OneSided:
    """Whether a mean is shown to lie above a bound.

    Attributes:
        estimate: the mean, with the interval of level 1 - 2 alpha, whose lower end is above the bound if it is shown.
        bound: what the mean should be above: 0, or minus the margin.
        p: of "the mean is at most the bound".
        alpha: the level of the test.
    """

    estimate: Estimate
    bound: float
    p: float
    alpha: float

    @property
    def shown(self) -> bool:
        """Whether p is at most alpha."""
        return self.p <= self.alpha

    def facts(self) -> dict[str, Any]:
        """Return the fields and `shown`, for JSON."""
        return {**json_facts(asdict(self)), "shown": self.shown}


@dataclass(frozen=True, slots=True)
class Tost:
    """Whether a mean is shown to lie between two bounds: two one-sided tests, each at alpha.

    Attributes:
        estimate: the mean, with the interval of level 1 - 2 alpha, which is within the bounds if this is shown.
        low: the lower bound.
        high: the upper bound.
        p_low: of "the mean is at most `low`".
        p_high: of "the mean is at least `high`".
        alpha: the level of each test, and of both together.
    """

    estimate: Estimate
    low: float
    high: float
    p_low: float
    p_high: float
    alpha: float

    @property
    def p(self) -> float:
        """The greater of both p values, which is that of the two tests together."""
        return max(self.p_low, self.p_high)

    @property
    def shown(self) -> bool:
        """Whether p is at most alpha."""
        return self.p <= self.alpha

    def facts(self) -> dict[str, Any]:
        """Return the fields, `p` and `shown`, for JSON."""
        return {**json_facts(asdict(self)), "p": self.p, "shown": self.shown}


@dataclass(frozen=True, slots=True)
class ShareTest:
    """Whether an arm keeps a reference's gain over a floor, but for a share of it.

    Attributes:
        share: the share of the gain that may be lost.
        gain: reference - floor, tested to be above 0; if it is not shown, there is nothing to keep: the claim is void.
        difference: arm - reference, with the interval of level 1 - 2 alpha.
        lower: arm - reference + share x (reference - floor), tested to be above 0: no more than the share is lost.
        upper: reference - arm + share x (reference - floor), tested to be above 0: no more than the share is won.
        kept: (arm - floor) / (reference - floor) of the means; None where the means have no gain.
    """

    share: float
    gain: OneSided
    difference: Estimate
    lower: OneSided
    upper: OneSided
    kept: float | None

    @property
    def void(self) -> bool:
        """Whether the reference is not shown to beat the floor."""
        return not self.gain.shown

    @property
    def no_loss_p(self) -> float:
        """The p value of the claim "no loss", which takes the gain and the lower contrast: the greater of theirs."""
        return max(self.gain.p, self.lower.p)

    @property
    def equivalence_p(self) -> float:
        """The p value of the claim "the same", which takes the gain and both contrasts: the greatest of theirs."""
        return max(self.gain.p, self.lower.p, self.upper.p)

    @property
    def no_loss(self) -> bool:
        """Whether "no loss" is shown; a void claim never is."""
        return self.no_loss_p <= self.lower.alpha

    @property
    def equivalent(self) -> bool:
        """Whether "the same" is shown; a void claim never is."""
        return self.equivalence_p <= self.lower.alpha

    def facts(self) -> dict[str, Any]:
        """Return the fields, with `shown` of each test, and what they come to, for JSON."""
        return {
            **json_facts(asdict(self)),
            "gain": self.gain.facts(),
            "lower": self.lower.facts(),
            "upper": self.upper.facts(),
            "void": self.void,
            "no_loss_p": self.no_loss_p,
            "no_loss": self.no_loss,
            "equivalence_p": self.equivalence_p,
            "equivalent": self.equivalent,
        }


def superior(differences: ArrayLike, *, alpha: float = 0.05) -> OneSided:
    """Test whether the true mean of differences [P] is above 0.

    Raises:
        StudyError: a difference is not finite, there are fewer than two, or alpha is not between 0 and 1.
    """
    return _above(differences, 0.0, alpha)


def noninferior(differences: ArrayLike, margin: float, *, alpha: float = 0.05) -> OneSided:
    """Test whether the true mean of differences [P] (arm - reference) is above -margin.

    The margin is a number that was fixed before the scores were seen. One that is a share of a measured gain has an
    error of its own: `share_of_gain` is the test for it.

    Raises:
        StudyError: as `superior`, or the margin is not above 0.
    """
    if not 0 < margin < np.inf:
        raise StudyError(f"The margin of no loss is {margin}: give a number above 0.")
    return _above(differences, -margin, alpha)


def tost(differences: ArrayLike, low: float, high: float, *, alpha: float = 0.05) -> Tost:
    """Test whether the true mean of differences [P] is between `low` and `high`, by two one-sided tests.

    Raises:
        StudyError: as `superior`, or the bounds are not finite and in order.
    """
    if not -np.inf < low < high < np.inf:
        raise StudyError(f"The bounds of equivalence are {low} and {high}: give two numbers, the lower one first.")
    values = checked_array(differences, "The differences", axes=1)
    mean = _estimate(values, alpha)
    if not spreads(values):
        return Tost(mean, low, high, 1.0, 1.0, alpha)
    _, lower, upper = DescrStatsW(values).ttost_mean(low, high)
    return Tost(mean, low, high, float(lower[1]), float(upper[1]), alpha)


def share_of_gain(
    scores: Mapping[str, ArrayLike], *, arm: str, reference: str, floor: str, share: float = 0.2, alpha: float = 0.05
) -> ShareTest:
    """Test whether `arm` loses at most a share of what `reference` gains over `floor`.

    The margin is not a number but a share of a gain that the same seeds estimate, so it is part of the contrast that is
    tested: arm - reference + share x (reference - floor) > 0, pair by pair (in trials of medicines, the synthesis test
    for a fixed fraction of an effect). A test of arm - reference against share x the mean gain, as if that were known,
    has another false-positive rate: too high where the floor scatters more than the rest.

    A claim takes all of its tests at once, so each is at alpha and none is corrected (intersection-union).

    Args:
        scores: [P, F] of each arm, paired by seeds.
        arm: what might lose, such as the frozen one.
        reference: what it must keep up with, such as the unfrozen one.
        floor: what the reference must beat for the claim to mean anything, such as the one without pretraining.
        share: of the gain, between 0 and 1.
        alpha: the level of the claim.

    Raises:
        StudyError: as `contrast`, or the share or alpha is not between 0 and 1, or two of the arms are the same.
    """
    checked_share(share, "The share of the gain")
    if len({arm, reference, floor}) < 3:
        raise StudyError(
            f"The arms '{arm}', '{reference}' and '{floor}' are to be compared: name three different ones."
        )
    gain = contrast(scores, {reference: 1, floor: -1})
    difference = contrast(scores, {arm: 1, reference: -1})
    lower = contrast(scores, {arm: 1, reference: share - 1, floor: -share})
    upper = contrast(scores, {arm: -1, reference: 1 + share, floor: -share})
    gained = float(gain.mean())
    return ShareTest(
        share=share,
        gain=_above(gain, 0.0, alpha),
        difference=_estimate(difference, alpha),
        lower=_above(lower, 0.0, alpha),
        upper=_above(upper, 0.0, alpha),
        kept=1 + float(difference.mean()) / gained if spreads(np.array([0.0, gained])) else None,
    )


def _above(differences: ArrayLike, bound: float, alpha: float) -> OneSided:
    return OneSided(_estimate(differences, alpha), bound, t_test(differences, above=bound), alpha)


def _estimate(differences: ArrayLike, alpha: float) -> Estimate:
    """Return the mean with the interval whose ends the one-sided tests at alpha are about."""
    if not 0 < alpha < 0.5:
        raise StudyError(f"The level of the test is {alpha}: give a number between 0 and 0.5, such as 0.05.")
    return estimate(differences, level=1 - 2 * alpha)
