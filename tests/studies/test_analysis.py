"""results.json: what the report reads, the same bytes each time, with what was computed from planted runs."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renaissance.report.results import checked_results
from renaissance.studies.analysis import analyse
from renaissance.studies.arms import Design
from renaissance.studies.compute import compute
from renaissance.studies.curves import MOST_POINTS, curves
from renaissance.studies.facts import flops_a_pair, size_of, stage_facts
from renaissance.studies.folder import StudyFolder
from renaissance.studies.reach import reach
from renaissance.studies.results import collect
from renaissance.studies.runner import run_study
from renaissance.studies.scores import score_rows, variance_rows
from renaissance.studies.trials import Trial
from tests.studies.own_process import OwnProcess
from tests.studies.planted import NO_LOSS, UPDATES, Plant, alike, fill, greater, scattered, study

MEANS = {"trained": 60.0, "frozen": 64.0, "no-vlp": 50.0}
TOWER = Path(__file__).parents[2] / "recipes" / "studies" / "text_contrast.py"
TARGET = {"stage": "finetune", "metric": "validation/itm/accuracy", "value": 30.0}


@pytest.fixture
def design(tiny_spec: Callable[..., str]) -> Design:
    return study(tiny_spec(), [NO_LOSS, greater(), alike()], seeds=3, fine=2, targets=[TARGET])


@pytest.fixture
def folder(design: Design, tmp_path: Path) -> StudyFolder:
    return fill(StudyFolder(tmp_path / "study"), design, scattered(MEANS), more=True)


def only(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (found,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return found


def test_two_analyses_give_the_same_bytes_whatever_the_folder_and_the_order_of_the_runs(
    design: Design, folder: StudyFolder, tmp_path: Path
) -> None:
    failed = [design.runs_of["frozen", "finetune"][1][0]]
    analyse(design, folder)
    first = folder.results.read_bytes()
    analyse(design, folder)
    assert folder.results.read_bytes() == first
    other = StudyFolder(tmp_path / "elsewhere")
    analyse(design, fill(other, design, scattered(MEANS), more=True, backwards=True))
    assert other.results.read_bytes() == first
    third = StudyFolder(tmp_path / "third")
    analyse(design, fill(third, design, scattered(MEANS), more=True, failed=failed))
    assert third.results.read_bytes() != first
    assert str(tmp_path) not in third.results.read_text()


def test_what_refutes_stands_in_the_results(design: Design, folder: StudyFolder) -> None:
    one = only(analyse(design, folder)["hypotheses"], name="better")
    assert one["p"] + one["p_against"] == pytest.approx(1)
    assert one["p_against_holm"] >= one["p_against"]


def test_the_command_is_one_that_works_and_names_that_data_were_given(
    tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    shipped = study(tiny_spec(), seeds=2, name="freezing-world")
    folder = fill(StudyFolder(tmp_path), shipped, scattered(MEANS))
    folder.keep_design(shipped, threads=1, data="/pictures")
    command = analyse(shipped, folder)["study"]["command"]
    assert command == "renaissance study run freezing-world --preset cpu --data FOLDER"


def test_a_study_that_was_restated_is_exploratory_and_says_so(tiny_spec: Callable[..., str], tmp_path: Path) -> None:
    first, more = (study(tiny_spec(), [greater()], seeds=seeds) for seeds in (9, 10))
    folder = fill(StudyFolder(tmp_path), more, scattered(MEANS))
    folder.keep_design(first, threads=1, data=None)
    assert analyse(first, folder)["hypotheses"][0]["confirmatory"]
    folder.keep_design(more, threads=1, data=None)
    found = analyse(more, folder)["hypotheses"][0]
    assert (found["n"], found["verdict"], found["confirmatory"]) == (10, "supported", False)
    assert "changed after runs that measure it had ended" in found["reason"]


def test_flops_have_no_items_to_draw_and_trials_that_failed_are_told(
    tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    stated = greater(metric="pretrain/ledger/flops_as_run", weights={"trained": 1, "frozen": -1})
    counted = study(tiny_spec(), [greater("score"), stated], seeds=2)
    folder = fill(StudyFolder(tmp_path), counted, scattered(MEANS))
    folder.search("frozen").parent.mkdir(parents=True)
    trials = [Trial(0, {}, "finetune-trial0", 1.0), Trial(1, {}, "finetune-trial1", None, "pretrain-trial")]
    folder.search("frozen").write_text(json.dumps({"trials": [trial.facts() for trial in trials]}))
    notes = analyse(counted, folder)["notes"]
    assert [note for note in notes if "draws no items" in note] == [
        "'score': its bootstrap draws no items, as not all runs kept outcomes of the same ones."
    ]
    assert "Search of 'frozen': 1 of its 2 trials gave no score; 'pretrain-trial' failed." in notes


def test_cases_of_a_model_that_is_none_of_this_study_any_more_are_left_out(design: Design, folder: StudyFolder) -> None:
    own = design.runs_of["frozen", "finetune"][0][0]
    case = {"arm": "frozen", "query": "a", "kind": "text->image", "image": None, "right": True, "top": []}
    folder.cases("frozen").parent.mkdir(parents=True)
    folder.cases("frozen").write_text(json.dumps([{**case, "run": own}, {**case, "run": "finetune-0.0-gone"}]))
    assert [found["run"] for found in analyse(design, folder)["cases"]] == [own]


def test_the_report_can_read_it(design: Design, folder: StudyFolder) -> None:
    analyse(design, folder)
    found = checked_results(json.loads(folder.results.read_text()), what="results.json")
    assert found.study.complete
    assert found.study.command == "renaissance study run study.yaml --preset cpu"  # it does not ship
    assert [one.name for one in found.hypotheses] == ["no-loss", "better", "alike"]
    assert {run.state for run in found.runs} == {"done"}
    assert found.hypotheses[0].bootstrap is not None
    assert found.hypotheses[0].bootstrap.over == ["pretraining seeds", "fine-tuning seeds", "items"]
    assert len(found.hypotheses[0].differences) == found.hypotheses[0].n == 3
    assert found.hypotheses[0].margin is not None
    assert found.hypotheses[0].margin.of == ["trained", "no-vlp"]


def test_a_study_of_which_nothing_ran_can_be_analysed(design: Design, tmp_path: Path) -> None:
    folder = fill(StudyFolder(tmp_path), design, scattered(MEANS), waiting=design.runs)
    facts = analyse(design, folder)
    checked_results(json.loads(folder.results.read_text()), what="results.json")
    assert not facts["study"]["complete"]
    assert {one["verdict"] for one in facts["hypotheses"]} == {"undecided"}
    assert f"{len(design.runs)} of {len(design.runs)} runs have not ended." in facts["notes"]


def test_one_seed_gives_a_difference_and_no_test(tiny_spec: Callable[..., str], tmp_path: Path) -> None:
    design = study(tiny_spec(), [greater()], seeds=1, fine=2)
    folder, plant = StudyFolder(tmp_path), scattered(MEANS)
    facts = analyse(design, fill(folder, design, plant))
    checked_results(json.loads(folder.results.read_text()), what="results.json")
    (stated,) = facts["hypotheses"]
    each = [plant("frozen", (0, fine)) - plant("trained", (0, fine)) for fine in range(2)]
    assert stated["differences"] == pytest.approx([sum(each) / 2], rel=1e-5)
    assert (stated["n"], stated["p"], stated["estimate"]["low"]) == (1, None, None)


def test_failed_runs_stand_with_their_fault_and_without_a_path(design: Design, tmp_path: Path) -> None:
    failed = design.runs_of["frozen", "finetune"][1][0]
    facts = analyse(design, fill(StudyFolder(tmp_path), design, scattered(MEANS), failed=[failed]))
    run = only(facts["runs"], id=failed)
    assert (run["state"], run["flops"], run["scores_sha256"]) == ("failed", None, None)
    assert run["error"] == {"type": "NonFiniteError", "message": "The loss in x is NaN.", "exit_code": 3}
    assert f"The run '{failed}' failed: NonFiniteError, exit code 3." in facts["notes"]
    left_out = "Left out of 'no-loss', 'better', 'alike': pretraining seed 1: "
    assert any(note.startswith(left_out) for note in facts["notes"])
    assert [one["n"] for one in facts["hypotheses"]] == [2, 2, 2]


def test_scores_are_means_over_pretraining_seeds_that_are_whole(design: Design, tmp_path: Path) -> None:
    failed = [design.runs_of["frozen", "finetune"][1][0]]
    plant = scattered(MEANS)
    results = collect(design, fill(StudyFolder(tmp_path), design, plant, failed=failed))
    row = only(score_rows(results), arm="frozen", stage="finetune", metric="accuracy", split="test", model="trained")
    values = [[plant("frozen", (seed, fine)) for fine in range(2)] for seed in (0, 2)]
    assert row["values"] == values
    assert row["seeds"] == [0, 2]
    assert row["mean"] == pytest.approx(sum(map(sum, values)) / 4)
    assert row["chance"] == 50.0
    assert row["low"] < row["mean"] < row["high"]


# --- compute ----------------------------------------------------------------------------------------------------------


def test_savings_are_against_the_reference_with_the_store_without_it_and_with_its_build(
    design: Design, folder: StudyFolder
) -> None:
    rows = compute(collect(design, folder))
    saving = only(rows, arm="frozen", stage="pretrain")["saving"]
    assert saving["flops"] == pytest.approx(
        {"as_run": 0.4, "no_store": 0.2, "store_built": 0.35, "nothing_frozen": 0.0}
    )
    spared = {"training": 0.5, "evaluation": 0.0, "store": None, "store_built": (20 - 10 - 1.5) / 20}
    assert saving["seconds"] == pytest.approx(spared)
    assert saving["peak_memory_bytes"] == 0.5
    assert only(rows, arm="trained", stage="pretrain")["saving"]["flops"]["as_run"] == 0.0


def test_stages_add_up_but_for_memory_and_a_skipped_one_takes_nothing(design: Design, folder: StudyFolder) -> None:
    rows = compute(collect(design, folder))
    whole = only(rows, arm="trained", stage="all")
    assert (whole["flops"]["as_run"], whole["updates"], whole["peak_memory_bytes"]) == (2_000_000, 2 * UPDATES, 2000)
    assert only(rows, arm="no-vlp", stage="all")["saving"]["flops"]["as_run"] == 0.5


def test_a_target_takes_what_its_first_validation_had_taken(design: Design, tmp_path: Path) -> None:
    failed = [design.runs_of["trained", "finetune"][2][1]]
    folder = fill(StudyFolder(tmp_path), design, lambda arm, seeds: MEANS[arm], more=True, failed=failed)
    rows = reach(collect(design, folder))
    assert only(rows, arm="trained")["flops"] == [300_000] * 5 + [None]
    assert only(rows, arm="frozen")["flops"] == [120_000] * 6
    assert only(rows, arm="frozen")["samples"] == [320] * 6


def test_a_target_that_is_never_reached_takes_nothing(tiny_spec: Callable[..., str], tmp_path: Path) -> None:
    design = study(tiny_spec(), seeds=2, targets=[{**TARGET, "value": 99.0}])
    folder = fill(StudyFolder(tmp_path), design, scattered(MEANS), more=True)
    row = only(reach(collect(design, folder)), arm="frozen")
    assert row["flops"] == [None, None]
    assert row["ratio"] == {"to": "trained", "flops": None, "samples": None}


def test_what_a_target_takes_is_held_against_the_reference_in_pairs(
    tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    """Validation is the score - 40 + a fifth of the updates, so a score tells at which update 30 is reached."""
    design = study(tiny_spec(), seeds=3, fine=1, targets=[TARGET])
    when = {"trained": (40, 80, 20), "frozen": (80, 40, 1000), "no-vlp": (40, 1000, 20)}
    folder = fill(StudyFolder(tmp_path), design, lambda arm, seeds: 70 - when[arm][seeds[0]] / 5, more=True)
    rows = reach(collect(design, folder))
    trained, frozen, floor = (only(rows, arm=arm) for arm in ("trained", "frozen", "no-vlp"))
    assert (trained["ratio"], trained["every"]) == (None, 20)
    assert [row["samples"] for row in (trained, frozen)] == [[320, 640, 160], [640, 320, None]]
    twice_and_half = frozen["ratio"]["samples"]
    assert twice_and_half["n"] == 2, "the seed in which one of the two does not get there is left out"
    assert twice_and_half["mean"] == pytest.approx(1.0)
    assert twice_and_half["low"] == pytest.approx(1 / twice_and_half["high"])
    assert frozen["ratio"]["flops"]["mean"] == pytest.approx(0.6), "an update of it takes so much less"
    assert floor["ratio"]["samples"] == pytest.approx({"mean": 1.0, "low": 1.0, "high": 1.0, "n": 2})


def test_budgets_of_flops_are_levels_of_a_factor(tiny_spec: Callable[..., str], tmp_path: Path) -> None:
    budgets = {
        "about": "FLOPs of fine-tuning.",
        "varies": ["finetune.budget"],
        "levels": {f"{flops:.0f}e9": {"finetune.budget": {"flops": flops * 1e9}} for flops in (1, 3)},
    }
    stated = greater(weights={"3e9": 1, "1e9": -1})
    design = study(tiny_spec(), [stated], seeds=2, factors={"budget": budgets}, controls={}, reference="1e9")
    folder = fill(StudyFolder(tmp_path), design, lambda arm, seeds: 60.0)
    facts = analyse(design, folder)
    checked_results(json.loads(folder.results.read_text()), what="results.json")
    assert [arm["levels"] for arm in facts["arms"]] == [{"budget": "1e9"}, {"budget": "3e9"}]
    assert only(facts["stages"], name="finetune")["updates"] == UPDATES
    assert {row["arm"] for row in facts["compute"]} == {"1e9", "3e9"}


# --- curves, variance, facts ------------------------------------------------------------------------------------------


def test_curves_are_thinned_and_tell_mean_and_range(design: Design, folder: StudyFolder) -> None:
    found = curves(collect(design, folder))
    loss = only(found, arm="frozen", stage="pretrain", metric="loss/itm")["points"]
    assert len(loss) == MOST_POINTS
    assert (loss[0][0], loss[-1][0]) == (1, UPDATES)
    assert loss[-1][1:3] == [8 * UPDATES, 600_000]
    plant = scattered(MEANS)
    ends = [plant("frozen", (seed, fine)) - 40 + 36 for seed in range(3) for fine in range(2)]
    last = only(found, arm="frozen", stage="finetune", metric="validation/itm/accuracy")["points"][-1]
    assert last[3:] == pytest.approx([sum(ends) / 6, min(ends), max(ends)])
    assert not [one for one in found if one["metric"] == "lr"]


def by_seed(arm: str, seeds: tuple[int, ...]) -> float:
    return 60.0 + 10 * seeds[0]


def by_fine(arm: str, seeds: tuple[int, ...]) -> float:
    return 60.0 + 10 * (seeds[-1] % 2)


@pytest.mark.parametrize(
    ("plant", "source"),
    [
        (by_seed, "pretraining"),
        (by_fine, "finetuning"),
        (lambda arm, seeds: MEANS[arm], "items"),
    ],
    ids=["pretraining", "finetuning", "items"],
)
def test_the_spread_is_told_by_where_it_comes_from(design: Design, tmp_path: Path, plant: Plant, source: str) -> None:
    rows, _ = variance_rows(collect(design, fill(StudyFolder(tmp_path), design, plant, more=True)))
    row = only(rows, arm="frozen")
    shares = {name: row[name] for name in ("pretraining", "finetuning", "items")}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[source] > 0.9
    assert row["sd"] > 0


def test_estimates_below_0_are_told_once_for_all_arms(design: Design, tmp_path: Path) -> None:
    _, notes = variance_rows(collect(design, fill(StudyFolder(tmp_path), design, by_fine, more=True)))
    below = [note for note in notes if "below 0" in note]
    assert len(below) == 1
    assert "pretraining seed in 'trained', 'frozen', 'no-vlp'" in below[0]


def test_one_fine_tuning_seed_is_told_once(tiny_spec: Callable[..., str], tmp_path: Path) -> None:
    single = study(tiny_spec(), seeds=3, fine=1)
    rows, notes = variance_rows(collect(single, fill(StudyFolder(tmp_path), single, scattered(MEANS), more=True)))
    assert {row["finetuning"] for row in rows} == {None}
    assert len([note for note in notes if "One fine-tuning seed" in note]) == 1


def test_without_outcomes_the_spread_is_not_split_and_that_is_said(design: Design, tmp_path: Path) -> None:
    rows, notes = variance_rows(collect(design, fill(StudyFolder(tmp_path), design, scattered(MEANS))))
    assert rows == []
    assert len(notes) == 1
    assert notes[0].startswith("Variance of 'trained', 'frozen', 'no-vlp': not split")


def test_an_arm_is_told_by_its_size_and_what_is_frozen(design: Design) -> None:
    trained, frozen = (size_of(design.arm(name).recipes["pretrain"]) for name in ("trained", "frozen"))
    assert trained is not None
    assert frozen is not None
    assert trained.frozen == {}
    assert frozen.frozen == {"vision": "2 of 2 blocks"}
    assert frozen.total == trained.total
    assert flops_a_pair(design.arm("frozen").recipes["pretrain"]) == flops_a_pair(
        design.arm("trained").recipes["pretrain"]
    )
    assert frozen.trainable < trained.trainable == trained.total
    assert 0 < trained.without_embeddings < trained.total / 2  # words are most of so small a model


def test_the_size_of_a_saved_model_is_not_known(design: Design) -> None:
    assert size_of(design.arm("trained").recipes["finetune"]) is None
    assert flops_a_pair(design.arm("trained").recipes["finetune"]) is None


def test_a_stage_is_told_in_words(design: Design) -> None:
    first = stage_facts(design)[0]
    assert (first["updates"], first["batch"], first["seeds"]) == (UPDATES, 8, 3)
    assert first["data"] == "2,000 generated scenes of 64 px"


# --- a study that ran -------------------------------------------------------------------------------------------------


def test_a_study_that_ran_here_is_analysed_to_its_end(tiny_study: Callable[..., Any], tmp_path: Path) -> None:
    def change(study: dict[str, Any]) -> None:
        study["stages"]["finetune"]["evaluation"]["outcomes"] = True

    design, folder = tiny_study(change), StudyFolder(tmp_path / "study")
    assert run_study(design, folder, workers=OwnProcess()).complete
    folder.study.write_text("name: tiny\n")
    facts = analyse(design, folder)
    found = checked_results(json.loads(folder.results.read_text()), what="results.json")
    (stated,) = found.hypotheses
    assert stated.n == 2
    assert stated.bootstrap is not None
    assert "items" in stated.bootstrap.over
    assert not stated.confirmatory
    assert {row.arm for row in found.variance} == {"low", "high"}
    assert {row.stage for row in found.compute} == {"pretrain", "finetune", "all"}
    assert all(row.flops["as_run"] for row in found.compute)
    assert {curve.metric for curve in found.curves} == {"loss/itm"}
    first = folder.results.read_bytes()
    assert facts == analyse(design, folder)
    assert folder.results.read_bytes() == first


def test_a_tower_named_by_a_folder_is_found_in_the_study_s_wherever_it_is_analysed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = 'tiny-vit[:1] + transformers:text-contrast(dropout=0.0, pooling="mean"), two-tower, concat(width=32)'
    design = study(line, [NO_LOSS], seeds=2)
    folder = fill(StudyFolder(tmp_path / "study"), design, scattered(MEANS))
    runpy.run_path(str(TOWER))["make"](folder.path / "text-contrast")
    monkeypatch.chdir(tmp_path)
    found = analyse(design, folder)["arms"]
    assert all(arm["parameters"] and arm["flops_a_pair"] for arm in found)
