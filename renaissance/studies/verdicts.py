"""What a study says of each hypothesis: supported, refuted, undecided or void, and whether that is confirmatory.

A claim is supported where its test is significant at alpha, and refuted where the opposite test is. The primary
hypothesis was named before the run, so its own p value counts; of the others, the one that Holm's correction over all
stated hypotheses gives. Only the primary one can be confirmatory: in a preset that says so, with as many seeds as were
planned, and with no run of its arms still to come (a look at part of the data is not the test that was planned).
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


def verdict_of(found: Tested | Untested, p_holm: float, design: Design) -> Verdict:
    """Return the verdict on a hypothesis. p_holm: its p value, corrected for all that were stated."""
    hypothesis = found.hypothesis
    word: Word
    if design.size.verdicts == "none":
        word, why = "undecided", f"the preset '{design.preset}' gives no verdicts"
    elif isinstance(found, Untested):
        word, why = "undecided", found.why
    else:
        word, why = _decided(found, None if _primary(hypothesis, design) else p_holm)
    confirmatory, standing = _standing(found, design)
    parts = [why, standing, *([_left_out(found)] if _left_out(found) else [])]
    reason = "; ".join(parts)
    said = hypothesis.says.rstrip(".")
    measured = f": {_estimate(found)}" if isinstance(found, Tested) else ", as it was not tested"
    kind = "confirmatory" if confirmatory else "exploratory"
    sentence = f'In {_scope(design)}, the claim "{said}" is {word} ({kind}){measured}.'
    return Verdict(word, confirmatory, f"{reason[:1].upper()}{reason[1:]}.", sentence)


# --- the rules --------------------------------------------------------------------------------------------------------


def _decided(found: Tested, p_holm: float | None) -> tuple[Word, str]:
    """Return the verdict, and why. p_holm: what decides in place of the test's own p value."""
    p = found.p if p_holm is None else p_holm
    told = _p(p) if p_holm is None else f"{_p(p)} after Holm"
    match found.hypothesis:
        case Greater():
            return _greater(found, p, told)
        case NoLoss():
            return _no_loss(found, found.hypothesis, p, told)
        case Alike():
            return _alike(found, p, told)


def _greater(found: Tested, p: float, told: str) -> tuple[Word, str]:
    alpha, margin = found.hypothesis.alpha, _number(found.margin.value)
    what = f"the contrast {_contrast(found.hypothesis)}"
    if p <= alpha:
        return "supported", f"{what} is above {margin} ({told})"
    if found.p_against <= alpha and found.estimate.high <= found.margin.value:
        return "refuted", f"{what} is below {margin} ({_p(found.p_against)})"
    more = _more(found, "a difference as large as the one that was seen")
    return "undecided", f"{what} is shown to be neither above nor below {margin} ({told}){more}"


def _no_loss(found: Tested, stated: NoLoss, p: float, told: str) -> tuple[Word, str]:
    gain, p_gain, share = found.margin.gain, found.margin.p_gain, f"{stated.share:.0%}"
    assert gain is not None, "the margin of no loss is a share of a gain"
    assert p_gain is not None, "which is tested"
    if found.void:
        more = _more(found, "a gain as large as the one that was seen")
        beaten = f"'{stated.reference}' is not shown to beat '{stated.floor}' ({_p(p_gain)})"
        return "void", f"{beaten}, so that there is nothing to lose{more}"
    what = f"{share} of what '{stated.reference}' gains over '{stated.floor}' ({_number(gain.mean)})"
    if p <= stated.alpha:
        assert found.p_upper is not None, "no loss has both margins"
        upper = "and gains no more than that either" if found.p_upper <= stated.alpha else "and may even gain more"
        return "supported", f"'{stated.arm}' loses less than {what} ({told}), {upper}"
    if found.p_against <= stated.alpha:
        return "refuted", f"'{stated.arm}' loses more than {what} ({_p(found.p_against)})"
    more = _more(found, "this margin, if truly nothing is lost")
    return "undecided", f"'{stated.arm}' is shown to lose neither less nor more than {what} ({told}){more}"


def _alike(found: Tested, p: float, told: str) -> tuple[Word, str]:
    alpha, margin = found.hypothesis.alpha, _number(found.margin.value)
    what = f"the contrast {_contrast(found.hypothesis)}"
    if p <= alpha:
        return "supported", f"{what} is within {margin} to either side ({told})"
    if found.p_against <= alpha:
        return "refuted", f"{what} is beyond {margin} ({_p(found.p_against)})"
    more = _more(found, "this margin, if there is truly no difference")
    return "undecided", f"{what} is shown to be neither within {margin} nor beyond it ({told}){more}"


# --- what it counts for -----------------------------------------------------------------------------------------------


def _standing(found: Tested | Untested, design: Design) -> tuple[bool, str]:
    """Return whether a verdict is confirmatory, and why it is, or is not."""
    planned, waiting = seeds_planned(found.hypothesis), 0 if found.pairs is None else found.pairs.waiting
    had = 0 if found.pairs is None else len(found.pairs.seeds)
    if not _primary(found.hypothesis, design):
        return False, "exploratory, as it is not the primary hypothesis"
    if design.size.verdicts != "confirmatory":
        return False, f"exploratory, as the preset '{design.preset}' says"
    if planned is None:
        return False, "exploratory, as its 'expected' does not say how many seeds it needs"
    if had < planned:
        return False, f"exploratory, as it has {had} pretraining seeds of the {planned} that it needs"
    if waiting:
        have = "run of its arms has" if waiting == 1 else "runs of its arms have"
        return False, f"exploratory, as {waiting} {have} not ended"
    if isinstance(found, Untested):
        return False, "exploratory, as it was not tested"
    return True, f"confirmatory, with {had} pretraining seeds of the {planned} that it needs"


def _primary(hypothesis: Hypothesis, design: Design) -> bool:
    return hypothesis.name == design.study.primary


def _left_out(found: Tested | Untested) -> str:
    count = 0 if found.pairs is None else len(found.pairs.left_out)
    are = "seed is" if count == 1 else "seeds are"
    return f"{count} pretraining {are} left out, see the notes" if count else ""


# --- in words ---------------------------------------------------------------------------------------------------------


def _more(found: Tested, what: str) -> str:
    """Return how many seeds would decide, after a semicolon."""
    if found.seeds_to_decide is None:
        return "; no number of seeds is known to decide it"
    seen = f"at the spread that was seen (sd {_number(found.spread)})"
    return f"; {seen} {found.seeds_to_decide} seeds show {what} in 80 of 100 studies"


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
    return f"{value:.3g}"


def _p(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"
