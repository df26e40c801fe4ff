"""From a study to its runs: who is made of what, and which runs are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from renaissance.errors import StudyError
from renaissance.studies.arms import at_preset, expand

Studies = Callable[..., Any]
HIGH = {"finetune.optimiser.lr": 0.01}


def floor(study: dict[str, Any], tiny: str) -> None:
    """Add a control that is fine-tuned from nothing."""
    settings = {"finetune.start": tiny}
    study["controls"] = {
        "floor": {"about": "No pretraining.", "skips": ["pretrain"], "varies": ["finetune.start"], "settings": settings}
    }


def ids(design: Any, arm: str, stage: str) -> list[list[str]]:
    return [list(row) for row in design.runs_of[arm, stage]]


# --- seeds ------------------------------------------------------------------------------------------------------------


def test_seeds_of_a_later_stage_are_nested_in_those_of_the_earlier_one(tiny_study: Studies) -> None:
    design = tiny_study(lambda study: study.update(seeds={"pretrain": 2, "finetune": 3}))
    rows = ids(design, "low", "finetune")
    assert [[design.runs[run].seeds for run in row] for row in rows] == [
        [(0, 0), (0, 1), (0, 2)],
        [(1, 0), (1, 1), (1, 2)],
    ]
    for number, row in enumerate(rows):
        assert {design.runs[run].after for run in row} == set(ids(design, "low", "pretrain")[number])
    assert len({run.recipe["seed"] for run in design.runs.values() if run.stage == "finetune"}) == 6


def test_arms_have_the_same_seeds_so_that_they_pair(tiny_study: Studies, tiny_spec: Callable[..., str]) -> None:
    design = tiny_study(lambda study: floor(study, tiny_spec()))
    seeds = [
        [[design.runs[run].recipe["seed"] for run in row] for row in ids(design, arm.name, "finetune")]
        for arm in design.arms
    ]
    assert seeds[0] == seeds[1] == seeds[2]


# --- runs that are the same -------------------------------------------------------------------------------------------


def test_arms_share_the_runs_up_to_where_they_differ(tiny_study: Studies) -> None:
    design = tiny_study()
    assert ids(design, "low", "pretrain") == ids(design, "high", "pretrain")
    assert ids(design, "low", "finetune") != ids(design, "high", "finetune")
    assert design.arms_of(ids(design, "low", "pretrain")[0][0]) == ["low", "high"]
    assert len(design.runs) == 2 + 2 * 2


def test_runs_come_after_those_that_they_start_from(tiny_study: Studies) -> None:
    order = list(tiny_study().runs.values())
    begun: set[str] = set()
    for run in order:
        assert run.after is None or run.after in begun
        begun.add(run.id)


def renamed(study: dict[str, Any]) -> None:
    study["name"], study["question"] = "another", "Another?"
    study["factors"] = {"speed": {**study["factors"]["rate"], "levels": {"slow": {}, "fast": dict(HIGH)}}}
    study["hypotheses"][0]["weights"] = {"fast": 1, "slow": -1}


def test_what_a_study_or_an_arm_is_called_does_not_matter_to_a_run(tiny_study: Studies) -> None:
    assert list(tiny_study().runs) == list(tiny_study(renamed).runs)


@pytest.mark.parametrize(
    ("path", "value"), [("optimiser", {"eps": 1e-6}), ("data", {"kind": "world", "train": 17}), ("precision", "bf16")]
)
def test_any_setting_matters_to_a_run_and_to_those_after_it(tiny_study: Studies, path: str, value: object) -> None:
    changed = tiny_study(lambda study: study["stages"]["pretrain"].update({path: value}))
    assert not set(changed.runs) & set(tiny_study().runs)


@pytest.mark.parametrize(("key", "value"), [("size", 90), ("seed", 2), ("image_size", 48)])
def test_the_world_that_a_run_reads_matters_to_it(tiny_study: Studies, key: str, value: int) -> None:
    def with_world(**changes: int) -> Callable[[dict[str, Any]], None]:
        def change(study: dict[str, Any]) -> None:
            study["worlds"] = {"scenes": {"size": 80, "seed": 1, "layouts": ["coco-captions"], **changes}}
            study["stages"]["finetune"]["data"] = {"kind": "prepared", "path": "@scenes/coco-captions"}

        return change

    one, other = tiny_study(with_world()), tiny_study(with_world(**{key: value}))
    assert ids(one, "low", "pretrain") == ids(other, "low", "pretrain")
    assert ids(one, "low", "finetune") != ids(other, "low", "finetune")


# --- presets ----------------------------------------------------------------------------------------------------------


def test_a_preset_changes_all_arms_alike_and_leaves_some_out(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        small = {"settings": {"finetune.batch.size": 2}, "seeds": {"pretrain": 1}, "arms": ["high"]}
        study["presets"]["smoke"].update(small, verdicts="none")

    design = tiny_study(change)
    assert [arm.name for arm in design.arms] == ["high"]
    assert design.arms[0].recipes["finetune"]["batch"]["size"] == 2
    assert design.study.seeds == {"pretrain": 1, "finetune": 1}


def test_an_unknown_preset_is_told_with_those_that_there_are(tiny_study: Studies) -> None:
    with pytest.raises(StudyError, match=r"has no preset 'smok'; it has: smoke\. Did you mean 'smoke'\?"):
        at_preset(tiny_study().study, "smok")


def test_what_a_search_found_is_set_in_its_arm_alone(tiny_study: Studies) -> None:
    study = tiny_study().study
    design = expand(study, "smoke", searched={"high": {"finetune.optimiser.weight_decay": 0.5}})
    assert design.arm("high").recipes["finetune"]["optimiser"]["weight_decay"] == 0.5
    assert design.arm("low").recipes["finetune"]["optimiser"]["weight_decay"] != 0.5


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("finetune.optimizer.lr", 0.01, "unknown key 'optimizer'. Did you mean 'optimiser'?"),
        ("finetune.optimiser.lr", -1, "'optimiser.lr'"),
        ("finetune.budget.samples", 2, "give one of 'steps'"),
        ("finetune.start", "vit-base +", "spec"),
    ],
)
def test_a_level_that_does_not_validate_is_told_with_its_arm_and_stage(
    tiny_study: Studies, path: str, value: object, told: str
) -> None:
    def change(study: dict[str, Any]) -> None:
        study["factors"]["rate"].update(varies=[path], levels={"low": {}, "high": {path: value}})

    with pytest.raises(StudyError) as caught:
        tiny_study(change)
    assert told in str(caught.value) or path in str(caught.value)
    assert "high" in str(caught.value) or path in str(caught.value)


def test_a_budget_below_one_step_is_refused(tiny_study: Studies) -> None:
    with pytest.raises(StudyError, match=r"budget.samples is 2, which is no batch of 4"):
        tiny_study(lambda study: study["stages"]["finetune"].update(budget={"samples": 2}))


def test_a_control_that_skips_a_stage_does_not_start_from_it(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        study["controls"] = {"floor": {"about": "No pretraining.", "skips": ["pretrain"]}}

    with pytest.raises(StudyError, match="starts from '@pretrain', which is no earlier stage of this arm"):
        tiny_study(change)


def test_an_arm_has_a_stage(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        study["controls"] = {"nothing": {"about": "No training.", "skips": ["pretrain", "finetune"]}}

    with pytest.raises(StudyError, match="the arm 'nothing' skips every stage"):
        tiny_study(change)


def test_data_that_no_world_makes_are_refused(tiny_study: Studies) -> None:
    def change(study: dict[str, Any]) -> None:
        study["stages"]["finetune"]["data"] = {"kind": "prepared", "path": "@scenes/vqav2"}

    with pytest.raises(StudyError, match="there are no data '@scenes/vqav2'; 'worlds' makes: none"):
        tiny_study(change)
