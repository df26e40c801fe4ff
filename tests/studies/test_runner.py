"""The runs of a study: each done once, shared by arms, kept apart from those that fail, and the same after any stop."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renaissance.data.prepare import prepare
from renaissance.data.world.build import write_world
from renaissance.errors import SpecError, StoppedError, StudyError
from renaissance.studies.folder import DISCARDED, REMOVED, StudyFolder
from renaissance.studies.job import Job
from renaissance.studies.placing import lend_models, placed
from renaissance.studies.runner import run_study
from renaissance.studies.worlds import made
from tests.studies.conftest import scores
from tests.studies.own_process import OwnProcess

Studies = Callable[..., Any]
Changes = Callable[[dict[str, Any]], object]


class Counting(OwnProcess):
    """Notes which runs begin."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []

    def start(self, job: Job) -> None:
        self.begun.append(job.id)
        super().start(job)


def one_seed(study: dict[str, Any]) -> None:
    study["seeds"] = {"pretrain": 1, "finetune": 1}


def without_data(place: Path) -> Changes:
    """Return the change that lets the pretraining of the arm 'high' read a folder that is not there."""

    def change(study: dict[str, Any]) -> None:
        one_seed(study)
        study["factors"]["rate"] = {
            "about": "The data.",
            "varies": ["pretrain.data"],
            "levels": {"low": {}, "high": {"pretrain.data": {"kind": "prepared", "path": str(place)}}},
        }

    return change


@pytest.fixture(scope="module")
def study(tiny_study: Studies) -> Any:
    return tiny_study(one_seed)


@pytest.fixture(scope="module")
def whole(study: Any, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """The study, done in one go."""
    folder = StudyFolder(tmp_path_factory.mktemp("whole") / "study")
    outcome = run_study(study, folder, workers=OwnProcess())
    assert outcome.complete
    return folder


@pytest.fixture
def copied(whole: StudyFolder, tmp_path: Path) -> StudyFolder:
    return StudyFolder(shutil.copytree(whole.path, tmp_path / "copied"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of prepared captions."""
    root = tmp_path_factory.mktemp("scenes")
    write_world(root / "world", 60, 0, layouts=["coco-captions"], image_size=32)
    prepare("coco-captions", root / "world" / "coco-captions", root / "prepared")
    return root / "prepared"


# --- what is done, and what is not done again -------------------------------------------------------------------------


def test_arms_share_the_runs_in_which_they_are_the_same(study: Any, whole: StudyFolder) -> None:
    assert len(study.runs) == 3
    assert study.runs_of["low", "pretrain"] == study.runs_of["high", "pretrain"]
    (shared,) = study.runs_of["low", "pretrain"][0]
    for arm in ("low", "high"):
        (run,) = study.runs_of[arm, "finetune"][0]
        assert f"model: ./runs/{shared}" in (whole.run(run) / "recipe.yaml").read_text()


def test_done_runs_are_not_repeated_wherever_the_folder_is(study: Any, copied: StudyFolder) -> None:
    workers = Counting()
    outcome = run_study(study, copied, workers=workers)
    assert workers.begun == []
    assert set(outcome.done) == set(study.runs)


def test_a_run_whose_record_was_lost_is_recorded_and_not_repeated(study: Any, copied: StudyFolder) -> None:
    first, *_ = study.runs
    before = copied.record(first)
    copied.record_file(first).unlink()
    workers = Counting()
    run_study(study, copied, workers=workers)
    assert workers.begun == []
    assert copied.record(first) == before


def test_changed_results_stop_a_study_before_anything_runs(study: Any, copied: StudyFolder) -> None:
    first, *_, last = study.runs
    shutil.rmtree(copied.run(first))
    copied.record_file(first).unlink()
    scores = copied.run(last) / "scores.json"
    scores.write_text(scores.read_text().replace('"value": ', '"value": 1'))
    workers = Counting()
    with pytest.raises(StudyError, match=rf"Results of the run '{last}' were changed since they were made"):
        run_study(study, copied, workers=workers)
    assert workers.begun == []


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_failed_run_is_named_and_stops_only_those_that_start_from_it_until_it_is_retried(
    tiny_study: Studies, telling: Any, scenes: Path, tmp_path: Path
) -> None:
    place = tmp_path / "not-yet"
    study = tiny_study(without_data(place))
    (failed,), (waits,) = study.runs_of["high", "pretrain"][0], study.runs_of["high", "finetune"][0]
    folder = StudyFolder(tmp_path / "study")
    outcome = run_study(study, folder, workers=OwnProcess(), progress=telling)
    assert (outcome.failed, outcome.waiting, outcome.complete) == ((failed,), (waits,), False)
    assert len(outcome.done) == 2
    record = folder.record(failed)
    assert record is not None
    assert record["error"] is not None
    assert (record["error"]["type"], record["error"]["exit_code"]) == ("DataError", 4)
    assert str(place) in record["error"]["message"]
    assert any(f"{failed} (high) FAILED" in line and "DataError" in line for line in telling.lines)
    assert telling.lines[-1] == f"Waiting for '{failed}', which failed: {waits}"

    again = Counting()
    assert run_study(study, folder, workers=again) == outcome
    assert again.begun == []
    shutil.copytree(scenes, place)
    outcome = run_study(study, folder, workers=again, retry_failed=True)
    assert again.begun == [failed, waits]
    assert outcome.complete


def test_an_error_that_is_a_bug_fails_its_run_alone(study: Any, copied: StudyFolder) -> None:
    first, second = (study.runs_of[arm, "finetune"][0][0] for arm in ("low", "high"))
    for run in (first, second):
        copied.forget(run)
        shutil.rmtree(copied.run(run))
    copied.run(first).write_text("a file where the folder of a run should be")
    outcome = run_study(study, copied, workers=OwnProcess())
    assert outcome.failed == (first,)
    assert second in outcome.done


# --- weights ----------------------------------------------------------------------------------------------------------


def models(folder: StudyFolder, study: Any) -> list[str]:
    return [run for run in study.runs if folder.model(run).exists()]


def further(study: dict[str, Any]) -> None:
    """Add an arm that starts from the pretraining that the others share."""
    one_seed(study)
    study["factors"]["rate"]["levels"]["higher"] = {"finetune.optimiser.lr": 0.02}


def test_weights_that_no_run_needs_are_removed_and_nothing_else(study: Any, copied: StudyFolder) -> None:
    def files() -> dict[Path, bytes]:
        inner = ((path.relative_to(copied.path), path) for path in copied.path.rglob("*") if path.is_file())
        return {name: path.read_bytes() for name, path in inner if "model" not in name.parts}

    (shown,) = study.runs_of["low", "finetune"][0]
    assert run_study(study, copied, workers=Counting()).complete
    before = files()
    assert models(copied, study) == list(study.runs), "as long as nobody asks for it"
    outcome = run_study(study, copied, workers=Counting(), keep="results", shown=[shown])
    assert outcome.complete
    assert models(copied, study) == [shown]
    assert files() == before
    workers = Counting()
    run_study(study, copied, workers=workers, keep="results")
    assert (workers.begun, models(copied, study)) == ([], [])


def test_weights_stay_until_what_starts_from_them_is_done(tiny_study: Studies, scenes: Path, tmp_path: Path) -> None:
    place = tmp_path / "not-yet"

    def change(study: dict[str, Any]) -> None:
        one_seed(study)
        levels = {"low": {}, "high": {"finetune.data": {"kind": "prepared", "path": str(place)}}}
        study["factors"]["rate"] = {"about": "The data.", "varies": ["finetune.data"], "levels": levels}

    study, folder = tiny_study(change), StudyFolder(tmp_path / "study")
    (pretrained,), (failed,) = study.runs_of["high", "pretrain"][0], study.runs_of["high", "finetune"][0]
    assert run_study(study, folder, workers=OwnProcess(), keep="results").failed == (failed,)
    assert models(folder, study) == [pretrained]
    shutil.copytree(scenes, place)
    workers = Counting()
    assert run_study(study, folder, workers=workers, keep="results", retry_failed=True).complete
    assert workers.begun == [failed]
    assert models(folder, study) == []


def test_a_run_is_done_again_where_a_further_arm_needs_the_weights_that_it_gave_up(
    study: Any, tiny_study: Studies, copied: StudyFolder, telling: Any
) -> None:
    run_study(study, copied, workers=Counting(), keep="results")
    (shared,), known = study.runs_of["low", "pretrain"][0], {run: scores(copied.run(run)) for run in study.runs}
    wider = tiny_study(further)
    (added,) = wider.runs.keys() - study.runs.keys()
    workers = Counting()
    assert run_study(wider, copied, workers=workers, progress=telling, keep="results").complete
    assert workers.begun == [shared, added]
    assert telling.lines[0].startswith(f"'{shared}' is run again: its weights were given up")
    assert {run: scores(copied.verified(run)) for run in study.runs} == known
    assert models(copied, wider) == []


def test_what_a_kill_left_of_weights_is_no_model_and_goes(whole: StudyFolder, copied: StudyFolder, study: Any) -> None:
    (shared,) = study.runs_of["low", "pretrain"][0]
    copied.model(shared).rename(copied.run(shared) / REMOVED)
    assert models(copied, study) == [run for run in study.runs if run != shared]
    shutil.copytree(whole.model(shared), copied.model(shared))
    copied.remove_model(shared)
    copied.remove_model(shared)
    assert sorted(path.name for path in copied.run(shared).iterdir()) == sorted(
        path.name for path in whole.run(shared).iterdir() if path.name != "model"
    )


def test_what_a_kill_left_of_a_run_that_is_done_anew_goes(study: Any, copied: StudyFolder) -> None:
    first, *_ = study.runs
    shutil.copytree(copied.run(first), copied.run(f"{DISCARDED}{first}"))
    assert run_study(study, copied, workers=Counting()).complete
    assert sorted(path.name for path in (copied.path / "runs").iterdir()) == sorted(study.runs)
    copied.discard(first)
    assert copied.record(first) is None
    assert sorted(path.name for path in (copied.path / "runs").iterdir()) == sorted({*study.runs} - {first})


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_a_study_that_is_stopped_names_the_command_and_ends_as_if_it_never_was(
    study: Any, whole: StudyFolder, copied: StudyFolder, telling: Any, results: Any
) -> None:
    folder = copied
    for arm in ("low", "high"):
        (run,) = study.runs_of[arm, "finetune"][0]
        folder.forget(run)
        shutil.rmtree(folder.run(run))
    telling.on_line = lambda line: signal.raise_signal(signal.SIGTERM)
    with pytest.raises(
        StoppedError,
        match=r"2 of 3 runs have ended.* Continue with: renaissance study run tiny --preset smoke --out .*copied",
    ):
        run_study(study, folder, workers=OwnProcess(), progress=telling)
    outcome = run_study(study, folder, workers=OwnProcess())
    assert outcome.complete
    assert results(folder, study) == results(whole, study)


# --- data -------------------------------------------------------------------------------------------------------------


def world_study(study: dict[str, Any]) -> None:
    one_seed(study)
    study["worlds"] = {"scenes": {"size": 60, "seed": 1, "layouts": ["coco-captions", "vqav2"], "image_size": 32}}
    study["stages"]["pretrain"]["data"] = {"kind": "prepared", "path": "@scenes/coco-captions"}


def test_worlds_are_made_once_and_anew_where_a_kill_left_them_half_made(tiny_study: Studies, tmp_path: Path) -> None:
    study, folder = tiny_study(world_study).study, StudyFolder(tmp_path / "study")
    needed = {"scenes/coco-captions"}
    place = folder.prepared("scenes", "coco-captions")
    assert made(study, folder, needed) == {"scenes/coco-captions": place}
    files = {path.name: path.read_bytes() for path in place.iterdir()}
    written = place.stat().st_mtime_ns
    made(study, folder, needed)
    assert place.stat().st_mtime_ns == written
    (place / "manifest.json").unlink()
    shutil.rmtree(folder.world("scenes") / "world" / "coco-captions")
    (folder.world("scenes") / ".world-cut").mkdir()
    made(study, folder, needed)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == files
    assert not (folder.world("scenes") / ".world-cut").exists()


def test_a_world_that_was_made_otherwise_is_refused(tiny_study: Studies, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "study")
    made(tiny_study(world_study).study, folder, {"scenes/vqav2"})

    def larger(study: dict[str, Any]) -> None:
        world_study(study)
        study["worlds"]["scenes"]["size"] = 80

    with pytest.raises(StudyError, match="was made with size 60 and not 80; choose another --out"):
        made(tiny_study(larger).study, folder, {"scenes/vqav2"})


def test_a_layout_that_nobody_writes_is_named(tiny_study: Studies, tmp_path: Path) -> None:
    def wrong(study: dict[str, Any]) -> None:
        world_study(study)
        study["worlds"]["scenes"]["layouts"] = ["coco-captions", "vqa"]

    with pytest.raises(SpecError, match="No world is written as 'vqa'"):
        made(tiny_study(wrong).study, StudyFolder(tmp_path), {"scenes/vqa"})


def test_references_become_folders_of_the_study_and_the_plan_stays_as_it_is(
    tiny_study: Studies, tmp_path: Path
) -> None:
    def stored(study: dict[str, Any]) -> None:
        world_study(study)
        study["stages"]["finetune"]["data"] = {"kind": "images"}
        study["stages"]["finetune"]["store"] = True

    study = tiny_study(stored)
    before = json.dumps([dict(run.recipe) for run in study.runs.values()])
    first, second, _ = (placed(run.recipe, str(tmp_path)) for run in study.runs.values())
    assert first["data"]["path"] == "worlds/scenes/prepared/coco-captions"
    assert second["start"]["model"] == f"./runs/{next(iter(study.runs))}"
    assert second["data"]["path"] == str(tmp_path)
    assert second["store"]["folder"] == "features"
    assert json.dumps([dict(run.recipe) for run in study.runs.values()]) == before


def test_a_backbone_named_by_a_folder_is_found_from_the_folder_of_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StudyFolder(tmp_path / "study")
    (tmp_path / "models" / "text").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    start = {"vision": {"name": "tiny-vit"}, "text": {"name": "transformers:models/text"}}
    for _ in range(2):  # a study that goes on finds it there
        lend_models({"start": start}, folder)
    assert (folder.path / "models" / "text").samefile(tmp_path / "models" / "text")
    assert [path.name for path in folder.path.iterdir()] == ["models"]


def test_data_are_asked_for_where_a_stage_names_none_and_refused_where_all_do(
    tiny_study: Studies, study: Any, tmp_path: Path
) -> None:
    def unnamed(found: dict[str, Any]) -> None:
        found["stages"]["pretrain"]["data"] = {"kind": "images"}

    folder = StudyFolder(tmp_path / "study")
    with pytest.raises(StudyError, match="does not say where the images of 'pretrain' are: give --data FOLDER"):
        run_study(tiny_study(unnamed), folder, workers=OwnProcess())
    with pytest.raises(StudyError, match="names all of its data at preset 'smoke': leave --data out"):
        run_study(study, StudyFolder(tmp_path / "other"), workers=OwnProcess(), data=tmp_path)


def test_runs_share_a_store_of_frozen_features_and_read_worlds_and_given_data(
    tiny_study: Studies, tiny_spec: Callable[..., str], scenes: Path, tmp_path: Path
) -> None:
    def change(study: dict[str, Any]) -> None:
        world_study(study)
        for stage in study["stages"].values():
            stage["store"] = True
        study["stages"]["pretrain"]["start"] = tiny_spec("frozen both")
        study["stages"]["finetune"]["data"] = {"kind": "prepared"}
        study["factors"]["rate"]["levels"] = {"low": {}, "high": {"finetune.optimiser.lr": 0.01}}

    study, folder = tiny_study(change), StudyFolder(tmp_path / "study")
    assert run_study(study, folder, workers=OwnProcess(), data=scenes).complete
    stores = [place for place in folder.features.iterdir() if len(place.name) == 64]
    assert len(stores) == 2  # of the vision tower and of the text tower, for all runs
