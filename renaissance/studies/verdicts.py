"""What a study says of each hypothesis: supported, refuted, undecided or void, and whether that is confirmatory.

A claim is supported where its test is significant at alpha, and refuted where the opposite test is. The primary
hypothesis was named before the run, so its own p values count; of the others, those that Holm's correction over all
stated hypotheses gives, of the claims and of their opposites. Only the primary one can be confirmatory: in a preset
that says so, with as many seeds as were planned, with no run of its arms still to come (a look at part of the data is
not the test that was planned), and as it was stated before there was anything to see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from renaissance.studies.arms import Design
from renaissance.studies.design import Alike, Greater, Hypothesis, NoLoss
from renaissance.studies.hypotheses import Tested, Untested, seeds_planned, weights_of

Word = Literal["supported", "refuted", "undecided", "void"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict, why, in one sentence, and what it is of, in one that begins with the study's scope."""

    verdict: Word
    confirmatory: bool
    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class _Shown:
    """The p values that decide: of a claim, and of its opposite. after: by which correction, in words."""

    p: float
    against: float
    after: str = ""

    @property
    def told(self) -> str:
        return f"{_p(self.p)}{self.after}"

    @property
    def told_against(self) -> str:
        return f"{_p(self.against)}{self.after}"


def verdict_of(
    found: Tested | Untested, p_holm: float, design: Design, *, against_holm: float, restated: bool = False
) -> Verdict:
    """Return the verdict on a hypothesis.

    p_holm, against_holm: the p values of the claim and of its opposite, each corrected for all that were stated.
    restated: whether the primary hypothesis, its arms or its seeds were changed once there was something to see.
    """
    hypothesis = found.hypothesis
    word: Word
    if design.size.verdicts == "none":
        word, why = "undecided", f"the preset '{design.preset}' gives no verdicts"
    elif isinstance(found, Untested):
        word, why = "undecided", found.why
    else:
        own = _Shown(found.p, found.p_against)
        word, why = _decided(
            found, own if _primary(hypothesis, design) else _Shown(p_holm, against_holm, " after Holm")
        )
    confirmatory, standing = _standing(found, design, restated)
    parts = [why, standing, *([_left_out(found)] if _left_out(found) else [])]
    reason = "; ".join(parts)
    return Verdict(
        word, confirmatory, f"{reason[:1].upper()}{reason[1:]}.", _sentence(found, word, confirmatory, design)
    )


# --- the rules --------------------------------------------------------------------------------------------------------


def _decided(found: Tested, shown: _Shown) -> tuple[Word, str]:
    """Return the verdict, and why."""
    match found.hypothesis:
        case Greater():
            return _greater(found, shown)
        case NoLoss():
            return _no_loss(found, found.hypothesis, shown)
        case Alike():
            return _alike(found, shown)


def _greater(found: Tested, shown: _Shown) -> tuple[Word, str]:
    alpha, margin = found.hypothesis.alpha, _number(found.margin.value)
    what = f"the contrast {_contrast(found.hypothesis)}"
    if shown.p <= alpha:
        return "supported", f"{what} is above {margin} ({shown.told})"
    if shown.against <= alpha and found.estimate.high <= found.margin.value:
        return "refuted", f"{what} is below {margin} ({shown.told_against})"
    more = _more(found, "a difference as large as the one seen")
    return "undecided", f"{what} is not shown to be above {margin} ({shown.told}), nor to be below it{more}"


def _no_loss(found: Tested, stated: NoLoss, shown: _Shown) -> tuple[Word, str]:
    gain, p_gain, share = found.margin.gain, found.margin.p_gain, f"{stated.share:.0%}"
    assert gain is not None, "the margin of no loss is a share of a gain"
    assert p_gain is not None, "which is tested"
    if found.void:
        more = _more(found, "a gain as large as the one seen")
        beaten = f"'{stated.reference}' is not shown to beat '{stated.floor}' ({_p(p_gain)})"
        return "void", f"{beaten}, so that there is nothing to lose{more}"
    what = f"{share} of what '{stated.reference}' gains over '{stated.floor}' ({_number(gain.mean)})"
    if shown.p <= stated.alpha:
        return "supported", f"'{stated.arm}' loses less than {what} ({shown.told}), {_beside(found, gain.mean)}"
    if shown.against <= stated.alpha:
        return "refuted", f"'{stated.arm}' loses more than {what} ({shown.told_against})"
    more = _more(found, "this margin", " if truly nothing is lost")
    return "undecided", f"'{stated.arm}' is not shown to lose less than {what} ({shown.told}), nor to lose more{more}"


def _beside(found: Tested, gain: float) -> str:
    """Return what else is known of an arm that loses less than its margin: that is not yet that it loses nothing."""
    assert found.p_upper is not None, "no loss has both margins"
    share = f"{abs(found.estimate.mean) / gain:.0%}"
    if found.estimate.high < 0:
        return f"but it does lose, {share} of it"
    if found.p_upper > found.hypothesis.alpha:
        return "and may even gain more than that"
    return f"and gains, {share} of it" if found.estimate.low > 0 else "and gains no more than that either"


def _alike(found: Tested, shown: _Shown) -> tuple[Word, str]:
    alpha, margin = found.hypothesis.alpha, _number(found.margin.value)
    what = f"the contrast {_contrast(found.hypothesis)}"
    if found.void:
        assert found.margin.p_gain is not None, "which makes it void"
        beaten = f"the two arms are not shown to beat chance ({_p(found.margin.p_gain)})"
        return "void", f"{beaten}, so that being alike says nothing"
    if shown.p <= alpha:
        return "supported", f"{what} is within {margin} to either side ({shown.told})"
    if shown.against <= alpha:
        return "refuted", f"{what} is beyond {margin} ({shown.told_against})"
    more = _more(found, "this margin", " if there is truly no difference")
    return "undecided", f"{what} is not shown to be within {margin} ({shown.told}), nor to be beyond it{more}"


# --- what it counts for -----------------------------------------------------------------------------------------------


def _standing(found: Tested | Untested, design: Design, restated: bool) -> tuple[bool, str]:
    """Return whether a verdict is confirmatory, and why it is, or is not."""
    planned, waiting = seeds_planned(found.hypothesis), 0 if found.pairs is None else found.pairs.waiting
    had = 0 if found.pairs is None else len(found.pairs.seeds)
    if not _primary(found.hypothesis, design):
        return False, "exploratory, as it is not the primary hypothesis"
    if design.size.verdicts != "confirmatory":
        return False, f"exploratory, as the preset '{design.preset}' says"
    if planned is None:
        return False, "exploratory, as its 'expected' does not say how many seeds it needs"
    if restated:
        return False, "exploratory, as it, its arms or its seeds were changed after runs that measure it had ended"
    if had < planned:
        return False, f"exploratory, as it has {had} pretraining seeds of the {planned} that it needs"
    if waiting:
        have = "run of its arms has" if waiting == 1 else "runs of its arms have"
        return False, f"exploratory, as {waiting} {have} not ended"
    if isinstance(found, Untested):
        return False, "exploratory, as it was not tested"
    more = f"{had} pretraining seeds, more than the {planned}" if had > planned else f"the {had} pretraining seeds"
    return True, f"confirmatory, with {more} that it needs"


def _primary(hypothesis: Hypothesis, design: Design) -> bool:
    return hypothesis.name == design.study.primary


def _left_out(found: Tested | Untested) -> str:
    count = 0 if found.pairs is None else len(found.pairs.left_out)
    are = "seed is" if count == 1 else "seeds are"
    return f"{count} pretraining {are} left out, see the notes" if count else ""


# --- in words ---------------------------------------------------------------------------------------------------------


def _sentence(found: Tested | Untested, word: Word, confirmatory: bool, design: Design) -> str:
    claim = f'In {_scope(design)}, the claim "{found.hypothesis.says.rstrip(".")}"'
    if isinstance(found, Untested):
        return f"{claim} is {word}: it was not tested."
    if design.size.verdicts == "none":
        return f"{claim} gets no verdict: {_estimate(found)}."
    return f"{claim} is {word} ({'confirmatory' if confirmatory else 'exploratory'}): {_estimate(found)}."


def _more(found: Tested, what: str, given: str = "") -> str:
    """Return how many seeds would decide, after a semicolon. given: what must be true for that."""
    if found.seeds_to_decide is None:
        return "; no number of seeds is known to decide it"
    seen = f"at the spread that was seen (sd {_number(found.spread)})"
    return f"; {seen}, {found.seeds_to_decide} seeds would show {what} in 80 of 100 studies{given}"


def _scope(design: Design) -> str:
    scope = design.study.scope.rstrip(".")
    return scope[3:] if scope[:3].lower() == "in " else scope


def _estimate(found: Tested) -> str:
    mean = found.estimate
    interval = f"{mean.level:.0%} interval {_number(mean.low)} to {_number(mean.high)}, {mean.n} pretraining seeds"
    return f"{_contrast(found.hypothesis)} on {found.hypothesis.metric} is {_number(mean.mean)} ({interval})"


def _contrast(hypothesis: Hypothesis) -> str:
    return contrast_words(weights_of(hypothesis))


def contrast_words(weights: Mapping[str, float]) -> str:
    """Return a weighted sum of arms as one reads it: 'vision - 0.5 none - 0.5 text'."""
    words = ""
    for arm, weight in sorted(weights.items(), key=lambda one: -one[1]):
        sign = "-" if weight < 0 else "+"
        size = "" if abs(weight) == 1 else f"{abs(weight):g} "
        words += f" {sign} {size}{arm}" if words or weight < 0 else f"{size}{arm}"
    return words.strip()


def _number(value: float) -> str:
    """Return three digits of a number, of a large one in thousands, millions and so on: 837.7e9 is '838G'."""
    for unit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * unit:  # which is 1,000 in three digits
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def _p(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"
