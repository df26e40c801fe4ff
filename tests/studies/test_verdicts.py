"""Verdicts: each is reached by data that plant it, and none is called confirmatory that is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from renaissance.studies.hypotheses import examined, p_values, seeds_planned
from renaissance.studies.statistics.holm import holm
from renaissance.studies.verdicts import Verdict, contrast_words, verdict_of
from tests.studies.planted import NO_LOSS, alike, greater, planted, scattered, study

Judge = Callable[..., Verdict]


@pytest.fixture
def judge(tiny_spec: Callable[..., str]) -> Judge:
    """Return the verdict on one of the stated hypotheses, the first by default, where arms have planted means."""

    def judged(
        hypotheses: list[Any],
        means: dict[str, float],
        *,
        which: int = 0,
        sd: float = 0.5,
        failed: tuple[str, ...] = (),
        waiting: tuple[str, ...] = (),
        restated: bool = False,
        **options: Any,
    ) -> Verdict:
        design = study(tiny_spec(), hypotheses, **options)
        lost = {run for arm in failed for run in design.runs_of[arm, "finetune"][0]}
        later = {run for arm in waiting for run in design.runs_of[arm, "finetune"][0]}
        results = planted(design, scattered(means, sd=sd), failed=lost, waiting=later)
        found = [examined(results, hypothesis) for hypothesis in design.study.hypotheses]
        name = hypotheses[which]["name"]
        p_holm, against = (holm(p_values(found, against=against)).adjusted[name] for against in (False, True))
        return verdict_of(found[which], p_holm, design, against_holm=against, restated=restated)

    return judged


def means(trained: float, frozen: float, floor: float = 50.0) -> dict[str, float]:
    return {"trained": trained, "frozen": frozen, "no-vlp": floor}


@pytest.mark.parametrize(
    ("stated", "effect", "verdict"),
    [
        (greater(), means(60, 62), "supported"),
        (greater(), means(60, 58), "refuted"),
        (greater(), means(60, 60), "undecided"),
        (greater(margin=1.0), means(60, 60), "refuted"),
        (NO_LOSS, means(60, 60), "supported"),
        (NO_LOSS, means(60, 55), "refuted"),
        (NO_LOSS, means(60, 58), "undecided"),
        (NO_LOSS, means(60, 60, 60), "void"),
        (NO_LOSS, means(60, 60, 70), "void"),
        (alike(), means(60, 60), "supported"),
        (alike(), means(60, 65), "refuted"),
        (alike(), means(65, 60), "refuted"),
        (alike(margin=2.0), means(60, 62), "undecided"),
        (alike(), means(50, 50), "void"),  # chance is 50
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_planted_effect_gets_its_verdict(judge: Judge, stated: Any, effect: Any, verdict: str) -> None:
    found = judge([stated], effect)
    assert found.verdict == verdict
    assert found.confirmatory, found.reason


def test_the_sentence_begins_with_the_scope_and_holds_claim_verdict_and_interval(judge: Judge) -> None:
    sentence = judge([NO_LOSS], means(60, 60)).sentence
    assert sentence.startswith('In drawn scenes, with tiny towers, the claim "Freezing the vision tower costs nothing"')
    assert "is supported (confirmatory): frozen - trained on finetune/test/itm/accuracy is" in sentence
    assert "(95% interval " in sentence
    assert "8 pretraining seeds)." in sentence


def test_no_loss_is_void_where_the_reference_gains_nothing_and_says_so(judge: Judge) -> None:
    found = judge([NO_LOSS], means(60, 62, 60))
    assert found.reason.startswith("'trained' is not shown to beat 'no-vlp'")
    assert "nothing to lose" in found.reason


def test_no_loss_says_whether_it_is_equivalence_or_may_be_more(judge: Judge) -> None:
    assert "gains no more than that either" in judge([NO_LOSS], means(60, 60)).reason


@pytest.mark.parametrize(
    ("frozen", "told"),
    [
        (59, r"but it does lose, \d+% of it; "),
        (61, r"and gains, \d+% of it; "),
        (65, "and may even gain more than that"),
    ],
)
def test_no_loss_that_is_a_loss_or_a_gain_is_told_as_that(judge: Judge, frozen: float, told: str) -> None:
    found = judge([NO_LOSS], means(60, frozen), sd=0.2)
    assert found.verdict == "supported"
    assert re.search(told, found.reason), found.reason


def test_undecided_says_how_many_seeds_would_decide(judge: Judge) -> None:
    reason = judge([alike(margin=0.3)], means(60, 60)).reason
    assert "seeds would show this margin in 80 of 100 studies if there is truly no difference" in reason
    assert "at the spread that was seen (sd 0." in reason


def test_fewer_seeds_than_planned_are_never_confirmatory(judge: Judge) -> None:
    stated = alike(expected={"sd": 5.0})
    found = judge([stated], means(60, 60))
    assert (found.verdict, found.confirmatory) == ("supported", False)
    assert "it has 8 pretraining seeds of the" in found.reason
    assert "(exploratory)" in found.sentence


def test_without_an_expectation_nothing_is_confirmatory(judge: Judge) -> None:
    found = judge([alike(expected=None)], means(60, 60))
    assert not found.confirmatory
    assert "'expected' does not say how many seeds" in found.reason


def test_runs_still_to_come_keep_a_verdict_exploratory(judge: Judge) -> None:
    found = judge([greater()], means(60, 64), waiting=("frozen",))
    assert (found.verdict, found.confirmatory) == ("supported", False)
    assert "1 run of its arms has not ended" in found.reason


def test_failed_runs_are_said_where_enough_seeds_are_left(judge: Judge) -> None:
    found = judge([greater()], means(60, 64), failed=("frozen",))
    assert found.confirmatory
    assert "1 pretraining seed is left out" in found.reason


def test_failed_runs_that_leave_too_few_seeds_make_it_exploratory(judge: Judge) -> None:
    needed = 8
    stated = greater(expected={"sd": 1.0, "gain": 0.98})
    found = judge([stated], means(60, 64), failed=("frozen",), seeds=needed)
    assert not found.confirmatory
    assert "7 pretraining seeds of the 8" in found.reason


def test_only_the_primary_hypothesis_is_confirmatory(judge: Judge) -> None:
    found = judge([NO_LOSS, greater("second")], means(60, 64), which=1)
    assert (found.verdict, found.confirmatory) == ("supported", False)
    assert "not the primary hypothesis" in found.reason


@pytest.mark.parametrize(("which", "verdict"), [(0, "supported"), (1, "undecided")])
def test_all_but_the_primary_hypothesis_are_corrected_for_those_that_were_stated(
    judge: Judge, which: int, verdict: str
) -> None:
    hopeless = [greater(f"hopeless-{number}", margin=50.0) for number in range(20)]
    stated = [greater("first"), greater("second"), *hopeless]
    found = judge(stated, means(60, 60.8), which=which)
    assert found.verdict == verdict
    assert ("after Holm" in found.reason) == (which == 1)


@pytest.mark.parametrize(("which", "verdict"), [(0, "refuted"), (1, "undecided")])
def test_refutations_of_all_but_the_primary_hypothesis_are_corrected_too(
    judge: Judge, which: int, verdict: str
) -> None:
    true = [greater(f"true-{number}", margin=0.0, weights={"trained": 1, "frozen": -1}) for number in range(20)]
    found = judge([greater("first"), greater("second"), *true], means(60.5, 60), which=which)
    assert found.verdict == verdict


def test_what_was_restated_once_there_was_something_to_see_is_exploratory(judge: Judge) -> None:
    found = judge([greater()], means(60, 64), restated=True)
    assert (found.verdict, found.confirmatory) == ("supported", False)
    assert "changed after runs that measure it had ended" in found.reason


@pytest.mark.parametrize("verdicts", ["exploratory", "none"])
def test_a_preset_says_what_its_verdicts_are_worth(judge: Judge, verdicts: str) -> None:
    found = judge([greater()], means(60, 64), verdicts=verdicts)
    assert not found.confirmatory
    assert found.verdict == ("undecided" if verdicts == "none" else "supported")
    assert "the preset 'cpu'" in found.reason
    assert ("gets no verdict: frozen - trained" in found.sentence) == (verdicts == "none")


def test_one_seed_tests_nothing(judge: Judge) -> None:
    found = judge([greater()], means(60, 64), seeds=1)
    assert (found.verdict, found.confirmatory) == ("undecided", False)
    assert "a paired test takes two" in found.reason
    assert found.sentence.endswith('"Freezing scores higher" is undecided: it was not tested.')


def test_an_arm_that_the_preset_leaves_out_is_not_compared(judge: Judge) -> None:
    presets = {"cpu": {"about": "Two arms.", "verdicts": "confirmatory", "arms": ["trained", "no-vlp"]}}
    found = judge([greater()], means(60, 64), presets=presets)
    assert found.verdict == "undecided"
    assert "leaves out the arm 'frozen'" in found.reason


def test_equal_scores_of_all_seeds_show_nothing(judge: Judge) -> None:
    assert judge([greater()], means(60, 64), sd=0.0).verdict == "undecided"


@pytest.mark.parametrize(("margin", "verdict"), [(300_000, "supported"), (500_000, "refuted")])
def test_a_count_that_no_seed_changes_is_decided_without_a_spread(judge: Judge, margin: float, verdict: str) -> None:
    stated = greater(metric="pretrain/ledger/flops_as_run", weights={"trained": 1, "frozen": -1}, margin=margin)
    assert judge([stated], means(60, 60)).verdict == verdict


@pytest.mark.parametrize(
    ("stated", "needed"),
    [
        (greater(expected={"sd": 1.0, "gain": 1.0}), 8),
        (greater(expected={"sd": 1.0, "gain": 1.5}, margin=0.5), 8),
        (greater(expected={"sd": 1.0}), None),
        ({**NO_LOSS, "expected": {"sd": 2.0, "gain": 10.0}}, 8),
        ({**NO_LOSS, "expected": {"sd": 2.0}}, None),
        (alike(margin=1.0), 11),
        (alike(margin=2.7, expected={"sd": 1.0}), 3),
    ],
)
def test_seeds_follow_from_what_is_expected(
    tiny_spec: Callable[..., str], stated: dict[str, Any], needed: int | None
) -> None:
    assert seeds_planned(study(tiny_spec(), [stated]).study.hypotheses[0]) == needed


def test_flops_are_told_in_three_digits(judge: Judge) -> None:
    stated = greater(metric="pretrain/ledger/flops_as_run", weights={"trained": 1, "frozen": -1})
    assert "flops_as_run is 400k (95% interval 400k to 400k" in judge([stated], means(60, 60)).sentence


def test_a_contrast_is_told_as_a_sum() -> None:
    assert contrast_words({"vision": 1, "none": -1}) == "vision - none"
    assert contrast_words({"none": -0.5, "both": 1, "text": -0.5}) == "both - 0.5 none - 0.5 text"
