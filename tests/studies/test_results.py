"""What is read of a study's runs: verified, paired by seeds, and never silently short of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from renaissance.api import Outcomes
from renaissance.errors import StudyError
from renaissance.studies.analysis import analyse
from renaissance.studies.arms import Design
from renaissance.studies.folder import StudyFolder
from renaissance.studies.hypotheses import examined
from renaissance.studies.results import _levelled, collect
from tests.studies.planted import METRIC, fill, planted, scattered, study, write_outcomes

ARMS = ["frozen", "trained"]
MEANS = {"trained": 60.0, "frozen": 64.0, "no-vlp": 50.0}


@pytest.fixture
def design(tiny_spec: Callable[..., str]) -> Design:
    return study(tiny_spec(), seeds=3, fine=2)


@pytest.fixture
def folder(design: Design, tmp_path: Path) -> StudyFolder:
    return fill(StudyFolder(tmp_path / "study"), design, scattered(MEANS))


def run_of(design: Design, arm: str, stage: str, seed: int) -> str:
    return design.runs_of[arm, stage][seed][0]


def test_scores_come_by_pretraining_and_finetuning_seed(design: Design, folder: StudyFolder) -> None:
    pairs = collect(design, folder).pairs(METRIC, ARMS)
    assert pairs.seeds == (0, 1, 2)
    assert pairs.left_out == ()
    plant = scattered(MEANS)
    for arm in ARMS:
        expected = [[plant(arm, (seed, fine)) for fine in range(2)] for seed in range(3)]
        np.testing.assert_allclose(pairs.scores[arm], expected)


def test_scores_of_further_data_come_by_their_name(design: Design, folder: StudyFolder) -> None:
    results, metric = collect(design, folder), "finetune/beside/test/itm/accuracy"
    assert results.untestable(metric, ARMS) is None
    assert {arm: set(scores.flat) for arm, scores in results.pairs(metric, ARMS).scores.items()} == {
        arm: {70.0} for arm in ARMS
    }
    chance = results.chance(metric, ARMS, [0, 1])
    assert chance is not None
    assert chance.tolist() == [50.0, 50.0]
    assert results.untestable("finetune/other/test/itm/accuracy", ARMS) is not None


@pytest.mark.parametrize("lost", ["failed", "waiting"])
def test_a_seed_that_one_arm_lacks_is_left_out_of_all_and_said(design: Design, lost: str) -> None:
    run = run_of(design, "frozen", "finetune", 1)
    results = planted(design, scattered(MEANS), **{lost: [run]})
    pairs = results.pairs(METRIC, ARMS)
    assert pairs.seeds == (0, 2)
    assert {array.shape for array in pairs.scores.values()} == {(2, 2)}
    assert pairs.scores["trained"][1, 0] == scattered(MEANS)("trained", (2, 0))
    (line,) = pairs.left_out
    assert line.startswith(f"pretraining seed 1: '{run}' of 'frozen' ")
    assert ("failed (E, exit code 3)" if lost == "failed" else "has not run") in line
    assert pairs.waiting == (0 if lost == "failed" else 1)


def test_a_run_whose_start_failed_is_not_still_to_come(design: Design) -> None:
    lost = run_of(design, "frozen", "pretrain", 1)
    after = design.runs_of["frozen", "finetune"][1]
    pairs = planted(design, scattered(MEANS), failed=[lost], waiting=after).pairs(METRIC, ARMS)
    assert pairs.waiting == 0
    assert "has not run, as what it starts from failed" in pairs.left_out[0]


@pytest.mark.parametrize("name", ["scores.json", "ledger.json", "metrics.jsonl", "outcomes.safetensors"])
def test_edited_results_are_refused_before_anything_is_computed(design: Design, tmp_path: Path, name: str) -> None:
    folder = fill(StudyFolder(tmp_path), design, scattered(MEANS), more=True)
    run = run_of(design, "frozen", "finetune", 1)
    path = folder.run(run) / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(StudyError, match=f"Results of the run '{run}' were changed since they were made .{name}."):
        analyse(design, folder)
    assert not folder.results.exists()


def test_scores_that_are_no_numbers_are_left_out(design: Design, folder: StudyFolder) -> None:
    results = collect(design, folder)
    assert ("test", "itm", "odd", "trained") not in results.keys("trained", "finetune")
    assert results.untestable("finetune/test/itm/odd", ARMS) == (
        "no run of the arm 'frozen' measured 'finetune/test/itm/odd'"
    )


def test_a_split_of_further_data_is_called_by_both_names(design: Design, folder: StudyFolder) -> None:
    assert ("beside/test", "itm", "accuracy", "trained") in collect(design, folder).keys("trained", "finetune")


def test_an_arm_without_the_stage_cannot_be_compared_there(design: Design, folder: StudyFolder) -> None:
    results = collect(design, folder)
    assert results.untestable("pretrain/test/itm/accuracy", ["trained", "no-vlp"]) == (
        "the arm 'no-vlp' has no stage 'pretrain'"
    )


def test_ledger_figures_are_metrics(design: Design, folder: StudyFolder) -> None:
    results = collect(design, folder)
    found = {
        figure: results.pairs(f"pretrain/ledger/{figure}", ["frozen"]).scores["frozen"][0, 0]
        for figure in ("flops_as_run", "flops_no_store", "flops_store_built", "seconds_training", "peak_memory_bytes")
    }
    assert found == {
        "flops_as_run": 600_000,
        "flops_no_store": 800_000,
        "flops_store_built": 650_000,
        "seconds_training": 10,
        "peak_memory_bytes": 1000,
    }


def test_a_damaged_ledger_is_named(design: Design, folder: StudyFolder) -> None:
    run = run_of(design, "frozen", "finetune", 1)
    (folder.run(run) / "ledger.json").write_text("{}")
    folder.record_done(run)
    with pytest.raises(StudyError, match=f"'{run}': scores.json or ledger.json is none of this version"):
        collect(design, folder)


# --- outcomes ---------------------------------------------------------------------------------------------------------


def test_outcomes_are_paired_by_item(design: Design, tmp_path: Path) -> None:
    results = collect(design, fill(StudyFolder(tmp_path), design, scattered(MEANS), more=True))
    found = results.outcomes(METRIC, ARMS, (0, 2))
    assert found is not None
    assert {array.shape for array in found.values()} == {(2, 2, 40)}
    np.testing.assert_allclose(found["frozen"].mean(axis=2), results.pairs(METRIC, ARMS).scores["frozen"][[0, 2]], 1e-6)


@pytest.mark.parametrize("other", [{"items": 39}, {"samples": "others"}])
def test_outcomes_of_other_items_are_not_paired(design: Design, tmp_path: Path, other: dict[str, int | str]) -> None:
    folder = fill(StudyFolder(tmp_path), design, scattered(MEANS), more=True)
    run = run_of(design, "frozen", "finetune", 1)
    write_outcomes(folder.run(run), 60.0, **other)  # type: ignore[arg-type]  # each of its own kind
    folder.record_done(run)
    results = collect(design, folder)
    assert results.outcomes(METRIC, ARMS, (0, 1)) is None
    assert results.outcomes(METRIC, ARMS, (0, 2)) is not None
    found = examined(results, design.study.hypotheses[0])
    assert found.bootstrap.over == ("pretraining seeds", "fine-tuning seeds")  # type: ignore[union-attr]  # it is tested


def test_outcomes_of_unequal_weight_keep_the_score_as_their_mean() -> None:
    weights = np.array([0.5, 0.3, 0.2])
    outcomes = Outcomes(np.arange(3), np.array([10.0, 20.0, 90.0]), weights)
    levelled = _levelled(outcomes)
    assert levelled.mean() == pytest.approx(outcomes.mean)
    assert np.ptp(levelled) > 0


def test_results_do_not_depend_on_scores_files_order(design: Design, folder: StudyFolder) -> None:
    run = run_of(design, "frozen", "finetune", 1)
    path = folder.run(run) / "scores.json"
    told = json.loads(path.read_text())
    before = collect(design, folder).pairs(METRIC, ARMS).scores["frozen"].tolist()
    path.write_text(json.dumps({**told, "scores": told["scores"][::-1]}))
    folder.record_done(run)
    assert collect(design, folder).pairs(METRIC, ARMS).scores["frozen"].tolist() == before
