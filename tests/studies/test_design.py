"""A study's file is refused, with what to write, where it does not fit together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from renaissance.studies.design import Study, crossed, stage_of, within

Studies = Callable[..., Any]
Change = Callable[[dict[str, Any]], object]


def refused(tiny_study: Studies, change: Change, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        tiny_study(change)
    assert told in str(caught.value)


def hypothesis(**fields: Any) -> Change:
    return lambda study: study["hypotheses"][0].update(fields)


def alike(study: dict[str, Any], **fields: Any) -> None:
    """Put another kind of hypothesis in the place of the one that is there."""
    study["hypotheses"] = [
        {"name": "higher", "says": "As it says.", "metric": "finetune/test/itm/accuracy", **fields},
    ]


def control(name: str = "floor", **fields: Any) -> Change:
    return lambda study: study.update(controls={name: {"about": "A floor.", **fields}})


# --- what is varied stands in 'varies' ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("finetune.batch.size", 8),
        ("finetune.budget.steps", 3),
        ("finetune.schedule.decay", "cosine"),
        ("finetune.schedule.warmup_steps", 0),
        ("finetune.data.train", 20),
        ("finetune.tasks.itc", {}),
        ("finetune.augmentation.flip", True),
        ("pretrain.start.text.options.dropout", 0.2),
        ("finetune.optimiser.weight_decay", 0.1),
    ],
)
def test_a_level_sets_nothing_that_its_factor_does_not_say(tiny_study: Studies, path: str, value: object) -> None:
    def change(study: dict[str, Any]) -> None:
        study["factors"]["rate"]["levels"]["high"][path] = value

    refused(tiny_study, change, f"factors.rate.levels.high sets '{path}', which its 'varies' does not name")


def test_a_control_sets_nothing_that_it_does_not_say(tiny_study: Studies) -> None:
    change = control(settings={"finetune.batch.size": 2})
    refused(tiny_study, change, "controls.floor sets 'finetune.batch.size', which its 'varies' does not name")


def test_a_control_sets_nothing_in_a_stage_that_it_skips(tiny_study: Studies) -> None:
    change = control(
        varies=["pretrain.batch"],
        settings={"pretrain.batch.size": 2},
        skips=["pretrain"],
    )
    refused(tiny_study, change, "controls.floor sets 'pretrain.batch.size' of a stage that it skips")


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.update(primary="lower"), "'primary' is 'lower', and the hypotheses are: higher"),
        (lambda s: s["hypotheses"].append(s["hypotheses"][0]), "two hypotheses are called 'higher'"),
        (lambda s: s["seeds"].pop("finetune"), "'seeds' must name each stage once"),
        (hypothesis(metric="tune/test/itm/accuracy"), "names the stage 'tune', and the stages are: pretrain, finetune"),
        (lambda s: s["stages"]["finetune"].update(seed=3), "stages.finetune sets 'seed'"),
        (hypothesis(weights={"hihg": 1, "low": -1}), "names no arm of this study: 'hihg'. Did you mean 'high'?"),
        (lambda s: s.update(reference="lo"), "reference names no arm of this study: 'lo'"),
        (lambda s: s.update(arms=["low", "mid"]), "arms names no arm of this study: 'mid'"),
        (lambda s: s["presets"]["smoke"].update(arms=["lwo"]), "presets.smoke.arms names no arm of this study: 'lwo'"),
        (lambda s: s.update(matched=[{"arms": ["low", "x"], "on": "flops"}]), "matched names no arm"),
        (control("high"), "two arms are called 'high'"),
        (lambda s: s["presets"]["smoke"].update(worlds={"w": 10}), "names the world 'w', and there are: none"),
        (lambda s: s["presets"]["smoke"].update(trials=4), "says how many 'trials', and there is no 'search'"),
    ],
)
def test_what_is_named_is_there_and_there_once(tiny_study: Studies, change: Change, told: str) -> None:
    refused(tiny_study, change, told)


def test_an_unknown_key_is_refused(tiny_study: Studies) -> None:
    refused(tiny_study, lambda study: study.update(factor={}), "Extra inputs are not permitted")


# --- hypotheses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [{"high": 1, "low": -0.5}, {"high": 0, "low": 0}])
def test_the_weights_of_a_contrast_sum_to_nothing_and_are_something(
    tiny_study: Studies, weights: dict[str, float]
) -> None:
    refused(tiny_study, hypothesis(weights=weights), "the weights of a contrast are not 0 and sum to 0")


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "no-loss", "arm": "high", "reference": "low", "floor": "low"},
        {"kind": "alike", "arm": "high", "other": "high", "margin": 1.0},
    ],
)
def test_an_arm_is_not_compared_with_itself(tiny_study: Studies, fields: dict[str, Any]) -> None:
    refused(tiny_study, lambda study: alike(study, **fields), "name the same arm")


def test_a_range_begins_below_its_end(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        space = {"finetune.optimiser.weight_decay": {"low": 0.1, "high": 0.1}}
        study["search"] = {"stage": "finetune", "trials": 2, "space": space, "metric": "validation/itm/accuracy"}

    refused(tiny_study, change, "'low' 0.1 is not below 'high' 0.1")


def test_a_search_reads_no_test_split(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        space = {"finetune.optimiser.weight_decay": [0.1, 0.2]}
        study["search"] = {"stage": "finetune", "trials": 2, "space": space, "metric": "test/itm/accuracy"}

    refused(tiny_study, change, "search.metric")


# --- paths ------------------------------------------------------------------------------------------------------------


def test_a_path_stands_for_all_below_it_and_not_for_its_neighbours() -> None:
    assert within("pretrain.batch.size", ("pretrain.batch",))
    assert within("pretrain.batch", ("pretrain.batch",))
    assert not within("pretrain.batches.size", ("pretrain.batch",))
    assert stage_of("pretrain.batch.size") == "pretrain"


def test_levels_are_crossed_in_the_order_of_the_factors(tiny_study: Studies) -> None:
    def two(study: dict[str, Any]) -> None:
        levels = {"small": {}, "large": {"finetune.batch.size": 8}}
        study["factors"]["batch"] = {"about": "The batch.", "varies": ["finetune.batch"], "levels": levels}
        study["hypotheses"][0]["weights"] = {"high.large": 1, "low.small": -1}

    study: Study = tiny_study(two).study
    assert crossed(study) == ["low.small", "low.large", "high.small", "high.large"]
