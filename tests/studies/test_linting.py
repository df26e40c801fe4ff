"""Arms that differ by more than their factors say, or not at all, and hypotheses about nothing, are refused."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from renaissance.errors import StudyError
from renaissance.studies.arms import SEEDS_BELOW
from renaissance.studies.linting import check_design, differences
from renaissance.studies.trials import FIRST_SEED

Studies = Callable[..., Any]
Change = Callable[[dict[str, Any]], object]


def changed(design: Any, arm: str, path: str, value: object) -> Any:
    """Return a design one arm of which has another setting than it was given."""
    stage, *parents, last = path.split(".")
    arms = []
    for one in design.arms:
        recipes: Any = deepcopy(dict(one.recipes))
        if one.name == arm:
            place = recipes[stage]
            for key in parents:
                place = place[key]
            place[last] = value
        arms.append(replace(one, recipes=recipes))
    return replace(design, arms=tuple(arms))


def refused(design: Any, told: str) -> None:
    with pytest.raises(StudyError) as caught:
        check_design(design)
    assert told in str(caught.value)


def test_a_study_whose_arms_differ_by_their_factor_alone_passes(tiny_study: Studies) -> None:
    check_design(tiny_study())


@pytest.mark.parametrize(
    ("path", "value", "about"),
    [
        ("pretrain.batch.size", 8, "the batch"),
        ("finetune.budget.steps", 5, "the steps"),
        ("pretrain.schedule.decay", "cosine", "the schedule and its warm-up"),
        ("pretrain.schedule.warmup_steps", 0, "the schedule and its warm-up"),
        ("finetune.data.train", 20, "the data"),
        ("finetune.tasks.itc", {"weight": 1.0, "options": {}}, "the tasks and their heads"),
        ("finetune.augmentation.flip", True, "the views"),
        ("pretrain.start.text.options.dropout", 0.3, "the model"),
        ("finetune.optimiser.weight_decay", 0.3, "the optimiser"),
        ("finetune.evaluation.splits", ["test"], "what is measured"),
        ("finetune.freezing.stages", [{}], "what is thawed when"),
        ("finetune.store", {}, "what is stored"),
        ("finetune.precision", "bf16", "the precision"),
    ],
)
def test_arms_that_differ_in_what_no_factor_varies_are_refused(
    tiny_study: Studies, path: str, value: object, about: str
) -> None:
    refused(changed(tiny_study(), "high", path, value), f"the arms 'low' and 'high' differ in {about} ('{path}")


def test_a_factor_lets_only_arms_of_its_own_levels_differ(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        levels = {"small": {}, "large": {"finetune.batch.size": 8}}
        study["factors"]["batch"] = {"about": "The batch.", "varies": ["finetune.batch"], "levels": levels}
        study["hypotheses"][0]["weights"] = {"high.small": 1, "low.small": -1}

    design = tiny_study(change)
    check_design(design)
    told = "the arms 'low.small' and 'high.small' differ in the batch"
    refused(changed(design, "high.small", "finetune.batch.size", 2), told)


def test_arms_that_are_the_same_are_refused(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        study["factors"]["rate"]["levels"] = {"low": {}, "high": {}}

    refused(tiny_study(change), "the arms 'low' and 'high' are the same, run for run; leave one out.")


def test_differences_are_told_by_path_and_lists_as_one() -> None:
    found = list(differences({"a": {"b": 1, "c": [1, 2]}}, {"a": {"b": 1, "c": [1]}, "d": 2}, "stage"))
    assert [path for path, _, _ in found] == ["stage.a.c", "stage.d"]


@pytest.mark.parametrize("where", ["factors", "controls"])
def test_a_factor_that_no_recipe_has_is_refused_with_the_nearest(tiny_study: Studies, where: str) -> None:
    def change(study: dict[str, Any]) -> None:
        study["controls"] = {
            "other": {
                "about": "Another decay.",
                "varies": ["finetune.optimiser.eps"],
                "settings": {"finetune.optimiser.eps": 1e-6},
            }
        }
        named = study[where]["rate" if where == "factors" else "other"]
        named["varies"] = [*named["varies"], "finetune.optimizer.lr"]

    told = "varies 'finetune.optimizer.lr', which no recipe here has. Did you mean 'finetune.optimiser.lr'?"
    refused(tiny_study(change), told)


def test_so_many_seeds_that_their_numbers_run_out_are_refused(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        study["seeds"]["pretrain"] = 3
        for number in range(2):
            stage = {**study["stages"]["finetune"], "start": {"model": "@finetune" if not number else "@again0"}}
            study["stages"][f"again{number}"] = stage
            study["seeds"][f"again{number}"] = 1

    refused(tiny_study(change), "so many seeds in so many stages have no numbers left")


def test_the_trials_of_a_search_begin_where_the_seeds_of_runs_end() -> None:
    assert FIRST_SEED == SEEDS_BELOW


# --- hypotheses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("finetune/test/itc/accuracy", "the task 'itc', which 'finetune' does not measure; it has: itm"),
        ("finetune/tset/itm/accuracy", "the split 'tset', which 'finetune' does not measure; it has: test. Did you"),
        ("finetune/ledger/flops", "the figure of the ledger 'flops', which 'finetune' does not measure; it has: "),
        ("finetune/probe/test/itm/accuracy", "the further data 'probe', which 'finetune' does not measure; it has"),
    ],
)
def test_a_hypothesis_is_about_what_is_measured(tiny_study: Studies, metric: str, told: str) -> None:
    refused(tiny_study(lambda study: study["hypotheses"][0].update(metric=metric)), told)


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("probe/val/retrieval/R@1", None),
        ("open/anything/at_all/R@1", None),
        ("prob/val/retrieval/R@1", "the further data 'prob', which 'finetune' does not measure; it has: probe, open."),
        ("probe/vall/retrieval/R@1", "about 'probe', and the split 'vall', which 'finetune.evaluation.data.probe' "),
        ("probe/val/itm/R@1", "the task 'itm', which 'finetune.evaluation.data.probe' does not measure; it has: retri"),
        ("test/itm/accuracy", None),
        ("val/itm/accuracy", "the split 'val', which 'finetune' does not measure; it has: test."),
    ],
)
def test_a_hypothesis_is_about_further_data_that_its_stage_names(
    tiny_study: Studies, metric: str, told: str | None
) -> None:
    def change(study: dict[str, Any]) -> None:
        probe = {"path": "prepared/probe", "tasks": {"plugin:retrieval": {}}, "splits": ["val"]}
        data = {"probe": probe, "open": {"path": "prepared/open"}}
        study["stages"]["finetune"]["evaluation"] = {"data": data}
        study["hypotheses"][0].update(metric=f"finetune/{metric}")

    if told is None:
        check_design(tiny_study(change))
    else:
        refused(tiny_study(change), told)


def test_a_hypothesis_is_not_about_a_stage_that_its_arm_skips(
    tiny_study: Studies, tiny_spec: Callable[..., str]
) -> None:
    def change(study: dict[str, Any]) -> None:
        settings = {"finetune.start": tiny_spec()}
        skipping = {"about": "None.", "skips": ["pretrain"], "varies": ["finetune.start"], "settings": settings}
        study["controls"] = {"floor": skipping}
        study["hypotheses"][0].update(metric="pretrain/test/itm/accuracy", weights={"high": 1, "floor": -1})

    refused(tiny_study(change), "the arm 'floor' skips the stage 'pretrain'")


def test_a_hypothesis_is_not_about_an_arm_that_the_study_leaves_out(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        levels = {"small": {}, "large": {"finetune.batch.size": 8}}
        study["factors"]["batch"] = {"about": "The batch.", "varies": ["finetune.batch"], "levels": levels}
        study["arms"] = ["low.small", "high.small"]
        study["hypotheses"][0]["weights"] = {"high.large": 1, "low.small": -1}

    refused(tiny_study(change), "is about the arm 'high.large', which 'arms' leaves out")


def test_a_confirmatory_preset_has_the_arms_of_the_primary_hypothesis(tiny_study: Studies) -> None:
    def change(verdicts: str) -> Change:
        return lambda study: study["presets"]["smoke"].update(arms=["low"], verdicts=verdicts)

    check_design(tiny_study(change("exploratory")))
    refused(tiny_study(change("confirmatory")), "leaves out the arm 'high' of the primary hypothesis 'higher'")


# --- searches and targets ---------------------------------------------------------------------------------------------


def searching(space: dict[str, Any], metric: str = "validation/itm/accuracy") -> Change:
    def change(study: dict[str, Any]) -> None:
        study["search"] = {"stage": "finetune", "trials": 2, "space": space, "metric": metric}

    return change


def test_a_search_needs_no_evaluation_while_training(tiny_study: Studies) -> None:
    check_design(tiny_study(searching({"finetune.optimiser.weight_decay": {"low": 0.01, "high": 0.1}})))


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({"pretrain.optimiser.lr": [0.1, 0.2]}, "'search' tunes 'pretrain.optimiser.lr', which is not of its stage"),
        ({"finetune.optimizer.lr": [0.1, 0.2]}, "unknown key 'optimizer'. Did you mean 'optimiser'?"),
        ({"finetune.optimiser.betas": [[0.9, 0.98], [0.9, 1.5]]}, "'search' would set 'finetune.optimiser.betas' to"),
        ({"finetune.optimiser.lr": [0.1, 0.2]}, "and 'finetune.optimiser.lr' is set by an arm; leave one of them out"),
    ],
)
def test_a_search_that_cannot_be_made_is_refused(tiny_study: Studies, space: dict[str, Any], told: str) -> None:
    refused(tiny_study(searching(space)), told)


def test_a_search_is_judged_by_a_task_that_is_measured(tiny_study: Studies) -> None:
    change = searching({"finetune.optimiser.weight_decay": [0.1, 0.2]}, "validation/retrieval/R@1")
    refused(tiny_study(change), "'search' reads the task 'retrieval', which 'finetune' does not measure")


def test_a_target_is_looked_for_while_training(tiny_study: Studies) -> None:
    target = {"stage": "finetune", "metric": "validation/itm/accuracy", "value": 60.0}

    def change(study: dict[str, Any]) -> None:
        study["targets"] = [target]

    def evaluated(study: dict[str, Any]) -> None:
        change(study)
        study["stages"]["finetune"]["evaluation"] = {"every": 1, "validation": 4}

    refused(tiny_study(change), "'finetune.evaluation.every' is not set; set it.")
    check_design(tiny_study(evaluated))
