"""The numbers behind a hypothesis: its paired differences, their intervals and tests, and the seeds that it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from renaissance.errors import StudyError
from renaissance.studies.design import Alike, Greater, Hypothesis, NoLoss
from renaissance.studies.results import Pairs, Results, counted
from renaissance.studies.statistics.arrays import Floats
from renaissance.studies.statistics.equivalence import share_of_gain, tost
from renaissance.studies.statistics.paired import Estimate, bootstrap, contrast, estimate, spreads, t_test
from renaissance.studies.statistics.permutation import sign_flip
from renaissance.studies.statistics.power import Kind, seeds_needed

RESAMPLES = 2000
SUPERIORITY: Kind = "superiority"
NO_LOSS: Kind = "no-loss"
EQUIVALENCE: Kind = "equivalence"
SEEDS, FINE, ITEMS = "pretraining seeds", "fine-tuning seeds", "items"


@dataclass(frozen=True, slots=True)
class Interval:
    """A bootstrap interval, and what was drawn anew for it."""

    low: float
    high: float
    over: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Margin:
    """What a difference is held against. share, of, gain, p_gain: of a margin that is a share of a reference's gain."""

    value: float
    share: float | None = None
    of: tuple[str, str] | None = None
    gain: Estimate | None = None
    p_gain: float | None = None


@dataclass(frozen=True, slots=True)
class Tested:
    """A hypothesis with its tests, over at least two pretraining seeds.

    Attributes:
        hypothesis: as stated.
        pairs: the scores, and the seeds that are left out.
        differences: [P], of the contrast.
        estimate: of their mean, with the interval of level 1 - alpha.
        bootstrap: of their mean; drawn items too where all runs kept their outcomes.
        margin: what they are held against.
        p: of the claim's null hypothesis: at most alpha where the claim is shown.
        p_against: of the null hypothesis of its opposite: at most alpha where it is shown to be wrong.
        p_permutation: as `p`, by sign flips; of a margin that is a share of a gain, without the test of the gain.
        p_lower: of "at or below the lower margin"; p_upper: of "at or above the upper one"; None without a margin.
        spread: the standard deviation over seeds of the contrast whose test is the hardest.
        seeds_to_decide: how many would, at that spread; None where no number is known to.
    """

    hypothesis: Hypothesis
    pairs: Pairs
    differences: Floats
    estimate: Estimate
    bootstrap: Interval
    margin: Margin
    p: float
    p_against: float
    p_permutation: float
    p_lower: float | None
    p_upper: float | None
    spread: float
    seeds_to_decide: int | None

    @property
    def void(self) -> bool:
        """Whether nothing was learned that could be lost, or be alike: the floor, or chance, is not beaten."""
        return self.margin.p_gain is not None and self.margin.p_gain > self.hypothesis.alpha


@dataclass(frozen=True, slots=True)
class Untested:
    """A hypothesis that could not be tested, and why, as half a sentence."""

    hypothesis: Hypothesis
    pairs: Pairs | None
    why: str

    @property
    def differences(self) -> list[float]:
        """The contrast of each pretraining seed that has all runs, which are not enough for a test."""
        if self.pairs is None:
            return []
        means = {arm: scores.mean(axis=1) for arm, scores in self.pairs.scores.items()}
        weights = weights_of(self.hypothesis)
        return [
            float(sum(weight * means[arm][seed] for arm, weight in weights.items()))
            for seed in range(len(self.pairs.seeds))
        ]


def weights_of(hypothesis: Hypothesis) -> dict[str, float]:
    """Return the weights of the contrast that a hypothesis is about: arm - reference, where it names two."""
    match hypothesis:
        case Greater():
            return dict(hypothesis.weights)
        case NoLoss():
            return {hypothesis.arm: 1.0, hypothesis.reference: -1.0}
        case Alike():
            return {hypothesis.arm: 1.0, hypothesis.other: -1.0}


def seeds_planned(hypothesis: Hypothesis, *, power: float = 0.8) -> int | None:
    """Return the pretraining seeds that a hypothesis needs by what is expected of it; None: it does not say enough.

    "greater" needs the difference that is expected, in `gain`; the other two need none but their margin.
    """
    expected = hypothesis.expected
    if expected is None:
        return None
    match hypothesis:
        case Greater():
            room, kind = (expected.gain or 0.0) - hypothesis.margin, SUPERIORITY
        case NoLoss():
            room, kind = hypothesis.share * (expected.gain or 0.0), NO_LOSS
        case Alike():
            room, kind = hypothesis.margin, EQUIVALENCE
    return _seeds(room, expected.sd, hypothesis.alpha, kind, power)


def examined(results: Results, hypothesis: Hypothesis) -> Tested | Untested:
    """Return the tests of a hypothesis, or why there can be none."""
    why = results.untestable(hypothesis.metric, hypothesis.arms)
    if why is not None:
        return Untested(hypothesis, None, why)
    pairs = results.pairs(hypothesis.metric, hypothesis.arms)
    if len(pairs.seeds) < 2:
        had = "no pretraining seed has" if not pairs.seeds else "one pretraining seed alone has"
        return Untested(hypothesis, pairs, f"{had} all runs of its arms, and a paired test takes two")
    match hypothesis:
        case Greater():
            return _greater(results, hypothesis, pairs)
        case NoLoss():
            return _no_loss(results, hypothesis, pairs)
        case Alike():
            return _alike(results, hypothesis, pairs)


# --- by kind ----------------------------------------------------------------------------------------------------------


def _greater(results: Results, hypothesis: Greater, pairs: Pairs) -> Tested:
    values, margin = contrast(pairs.scores, hypothesis.weights), hypothesis.margin
    mean = _estimate(values, hypothesis.alpha)
    return Tested(
        hypothesis,
        pairs,
        values,
        mean,
        _bootstrap(results, hypothesis, pairs),
        Margin(margin),
        p=_p(hypothesis, values - margin),
        p_against=_p(hypothesis, margin - values),
        p_permutation=sign_flip(values - margin).p,
        p_lower=None,
        p_upper=None,
        spread=mean.sd,
        seeds_to_decide=_seeds(abs(mean.mean - margin), mean.sd, hypothesis.alpha, SUPERIORITY),
    )


def _no_loss(results: Results, hypothesis: NoLoss, pairs: Pairs) -> Tested:
    arm, reference, floor, share = hypothesis.arm, hypothesis.reference, hypothesis.floor, hypothesis.share
    test = share_of_gain(pairs.scores, arm=arm, reference=reference, floor=floor, share=share, alpha=hypothesis.alpha)
    gains = contrast(pairs.scores, {reference: 1, floor: -1})
    lower = contrast(pairs.scores, {arm: 1, reference: share - 1, floor: -share})
    values = contrast(pairs.scores, weights_of(hypothesis))
    gain = _estimate(gains, hypothesis.alpha)
    spread = gain.sd if test.void else test.lower.estimate.sd
    room, kind = (gain.mean, SUPERIORITY) if test.void else (share * gain.mean, NO_LOSS)
    return Tested(
        hypothesis,
        pairs,
        values,
        _estimate(values, hypothesis.alpha),
        _bootstrap(results, hypothesis, pairs),
        Margin(share * gain.mean, share, (reference, floor), gain, test.gain.p),
        p=test.no_loss_p,
        p_against=t_test(-lower),
        p_permutation=sign_flip(lower).p,
        p_lower=test.lower.p,
        p_upper=test.upper.p,
        spread=spread,
        seeds_to_decide=_seeds(room, spread, hypothesis.alpha, kind),
    )


def _alike(results: Results, hypothesis: Alike, pairs: Pairs) -> Tested:
    """Two models that learned nothing are alike, so they must beat chance together where it is known."""
    values, margin = contrast(pairs.scores, weights_of(hypothesis)), hypothesis.margin
    both = tost(values, -margin, margin, alpha=hypothesis.alpha)
    chance = results.chance(hypothesis.metric, hypothesis.arms, pairs.seeds)
    above = None if chance is None else contrast(pairs.scores, dict.fromkeys(hypothesis.arms, 0.5)) - chance
    gain = None if above is None else _estimate(above, hypothesis.alpha)
    p_gain = None if above is None else t_test(above)
    return Tested(
        hypothesis,
        pairs,
        values,
        _estimate(values, hypothesis.alpha),
        _bootstrap(results, hypothesis, pairs),
        Margin(margin, gain=gain, p_gain=p_gain),
        p=max(both.p, p_gain or 0.0),
        p_against=min(t_test(values, above=margin), t_test(-values, above=margin)),
        p_permutation=max(sign_flip(values + margin).p, sign_flip(margin - values).p),
        p_lower=both.p_low,
        p_upper=both.p_high,
        spread=both.estimate.sd,
        seeds_to_decide=_seeds(margin, both.estimate.sd, hypothesis.alpha, EQUIVALENCE),
    )


# --- intervals, tests and seeds ---------------------------------------------------------------------------------------


def _p(hypothesis: Hypothesis, above: Floats) -> float:
    """Return the p value of "the true mean of these is at most 0".

    What a ledger counts to the same figure with every seed is known, and no estimate: no spread decides it at once.
    """
    if counted(hypothesis.metric) and not spreads(above):
        return 0.0 if above.mean() > 0 else 1.0
    return t_test(above)


def _estimate(values: Floats, alpha: float) -> Estimate:
    return estimate(values, level=1 - alpha)


def _bootstrap(results: Results, hypothesis: Hypothesis, pairs: Pairs) -> Interval:
    """Return the interval over seeds and items; over seeds alone where not all runs have outcomes of the same items."""
    weights = weights_of(hypothesis)
    fine = next(iter(pairs.scores.values())).shape[1] > 1
    outcomes: Mapping[str, Floats] | None = results.outcomes(hypothesis.metric, list(weights), pairs.seeds)
    over = (SEEDS, *([FINE] if fine else []), *([ITEMS] if outcomes else []))
    if outcomes is None:  # two equal items: whichever are drawn, nothing changes
        outcomes = {arm: np.repeat(pairs.scores[arm][..., None], 2, axis=2) for arm in weights}
    low, high = bootstrap(outcomes, weights, seed=0, resamples=RESAMPLES, level=1 - hypothesis.alpha)
    return Interval(low, high, over)


@cache
def _seeds(room: float, sd: float, alpha: float, kind: Kind, power: float = 0.8) -> int | None:
    """Return the seeds that show a margin or an effect of `room`; None where no number is known to."""
    if room <= 0 or sd <= 0 or not math.isfinite(room / sd):
        return None
    try:
        return seeds_needed(room / sd, power=power, alpha=alpha, kind=kind)
    except StudyError:  # more than any study has
        return None


def p_values(found: Sequence[Tested | Untested], *, against: bool = False) -> dict[str, float]:
    """Return the p values of all stated hypotheses, or of their opposites: what could not be tested has shown none."""
    tested = {one.hypothesis.name: one for one in found if isinstance(one, Tested)}
    own = {name: one.p_against if against else one.p for name, one in tested.items()}
    return {one.hypothesis.name: own.get(one.hypothesis.name, 1.0) for one in found}
