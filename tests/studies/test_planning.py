"""A plan counts what a study takes, and refuses what cannot give what it is for: seeds, sizes and budgets."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from renaissance.errors import StudyError
from renaissance.studies import facts
from renaissance.studies.hypotheses import seeds_planned
from renaissance.studies.matching import check_matched
from renaissance.studies.planning import check_ready, check_seeds, plan

Studies = Callable[..., Any]
Change = Callable[[dict[str, Any]], object]
RATE = 1e9


# --- forecasts --------------------------------------------------------------------------------------------------------


def test_a_plan_counts_each_run_once(tiny_study: Studies) -> None:
    found = plan(tiny_study(), rate=RATE)
    assert [(one.arm, one.stage, one.runs, one.updates) for one in found.forecasts] == [
        ("low", "pretrain", 2, 4),
        ("low", "finetune", 2, 2),
        ("high", "pretrain", 2, 4),
        ("high", "finetune", 2, 2),
    ]
    pretrain, finetune = found.forecasts[:2]
    assert pretrain.flops is not None
    assert finetune.flops is not None
    assert found.flops is not None
    assert found.runs == 6
    assert found.flops == pytest.approx(2 * pretrain.flops + 4 * finetune.flops)
    assert found.seconds == pytest.approx(found.flops / RATE)


def test_a_frozen_tower_costs_less_and_trains_less(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        rules = [{"action": "random", "part": {"name": name}} for name in ("vision", "text")]
        rules.append({"action": "frozen", "part": {"name": "vision"}})
        levels = {"low": {}, "high": {"pretrain.start.rules": rules}}
        study["factors"]["rate"] = {"about": "Frozen.", "varies": ["pretrain.start.rules"], "levels": levels}

    plain, frozen = (one for one in plan(tiny_study(change), rate=RATE).forecasts if one.stage == "pretrain")
    assert plain.parameters == frozen.parameters
    for figure in ("trainable", "flops", "memory"):
        assert getattr(frozen, figure) < getattr(plain, figure)


def test_the_facts_of_a_plan_are_json(tiny_study: Studies) -> None:
    facts = json.loads(json.dumps(plan(tiny_study(), rate=RATE).facts()))
    assert (facts["study"], facts["runs"], facts["seeds"]) == ("tiny", 6, {"pretrain": 2, "finetune": 1})
    assert facts["seeds_needed"] is None


def test_a_saved_model_is_not_counted_and_why_is_said(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        study["stages"]["pretrain"]["start"] = {"model": "org/name"}

    found = plan(tiny_study(change), rate=RATE)
    assert {one.reason for one in found.forecasts if one.stage == "pretrain"} == {"'org/name' is a saved model"}
    assert found.flops is None


# --- seeds ------------------------------------------------------------------------------------------------------------


def confirmatory(seeds: int, **expected: float) -> Change:
    def change(study: dict[str, Any]) -> None:
        study["presets"]["smoke"].update(verdicts="confirmatory", seeds={"pretrain": seeds})
        if expected:
            study["hypotheses"][0]["expected"] = expected

    return change


def test_too_few_seeds_for_a_confirmatory_verdict_are_refused(tiny_study: Studies) -> None:
    few = tiny_study(confirmatory(2, sd=1.0, gain=1.0))
    needed = seeds_planned(few.study.hypotheses[0])
    assert needed is not None
    assert needed > 2
    with pytest.raises(StudyError, match=f"too few seeds: 'higher' takes {needed} pretraining seeds"):
        check_ready(few)
    assert check_seeds(tiny_study(confirmatory(needed, sd=1.0, gain=1.0))) == needed
    with pytest.raises(StudyError, match="too few seeds"):
        check_seeds(tiny_study(confirmatory(needed - 1, sd=1.0, gain=1.0)))


def test_a_confirmatory_verdict_says_what_it_expects(tiny_study: Studies) -> None:
    with pytest.raises(StudyError, match="'higher' does not say what it expects"):
        check_seeds(tiny_study(confirmatory(9)))
    with pytest.raises(StudyError, match="'higher' expects what no number of seeds shows"):
        check_seeds(tiny_study(confirmatory(9, sd=1.0)))


def test_an_exploratory_verdict_takes_any_seeds_and_is_told_how_many_it_needs(tiny_study: Studies) -> None:
    change: Change = lambda study: study["hypotheses"][0].update(expected={"sd": 1.0, "gain": 1.0})  # noqa: E731
    needed = check_seeds(tiny_study(change))
    assert needed is not None
    assert needed > 2


# --- budgets and sizes ------------------------------------------------------------------------------------------------


def with_flops(flops: float) -> Change:
    return lambda study: study["stages"]["pretrain"].update(budget={"flops": flops}, schedule={})


def test_a_budget_of_flops_holds_an_update(tiny_study: Studies) -> None:
    with pytest.raises(StudyError, match=r"arm 'low', stage 'pretrain': budget.flops is 1000, and one update of 4"):
        check_ready(tiny_study(with_flops(1e3)))
    one = plan(tiny_study(with_flops(1e10)), rate=RATE).forecasts[0]
    assert one.flops == 1e10
    assert one.updates is not None
    assert one.updates > 1


def matched(on: str, width: int, within: float = 0.1) -> Change:
    def change(study: dict[str, Any]) -> None:
        option = "pretrain.start.fusion.options.width"
        levels = {"low": {}, "high": {option: width, "pretrain.optimiser.lr": 0.01}}
        study["factors"]["rate"] = {"about": "Width.", "varies": list(levels["high"]), "levels": levels}
        study["matched"] = [{"arms": ["low", "high"], "on": on, "within": within}]

    return change


@pytest.mark.parametrize("on", ["parameters", "flops"])
def test_arms_that_are_matched_are_of_like_size(tiny_study: Studies, on: str) -> None:
    same = tiny_study(matched(on, 32))
    check_matched(same)
    wider = tiny_study(matched(on, 40))
    for check in (check_matched, check_ready, lambda design: plan(design, rate=RATE)):
        with pytest.raises(StudyError, match="differ by more than 10% of the smallest: low "):
            check(wider)
    check_matched(tiny_study(matched(on, 40, within=0.9)))


def test_parameters_are_matched_without_counting_flops(tiny_study: Studies) -> None:
    facts._forward_flops.cache_clear()
    check_matched(tiny_study(matched("parameters", 40, within=0.9)))
    assert facts._forward_flops.cache_info().misses == 0
    check_matched(tiny_study(matched("flops", 40, within=0.9)))
    assert facts._forward_flops.cache_info().misses == 2


def test_an_arm_whose_size_is_not_known_is_not_matched(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        study["stages"]["pretrain"]["start"] = {"model": "org/name"}
        study["matched"] = [{"arms": ["low", "high"], "on": "flops"}]

    with pytest.raises(StudyError, match="'matched' names the arm 'low', whose size is not known without its weights"):
        check_matched(tiny_study(change))
