"""The folder of a study: records last, digests of what was measured, one writer, one study."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renaissance.errors import OutputError, StudyError
from renaissance.studies.folder import Fault, StudyFolder

Studies = Callable[..., Any]


def ended(folder: StudyFolder, run: str) -> Path:
    """Make the files of a run that is done."""
    place = folder.run(run)
    (place / "checkpoints" / "step-00000004").mkdir(parents=True)
    (place / "scores.json").write_text(json.dumps({"seconds": {"training": 1.5, "evaluation": 0.25}}))
    (place / "ledger.json").write_text("{}")
    (place / "run.json").write_text(json.dumps({"format": 1, "id": "a", "state": "done"}))
    return place


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    found = StudyFolder(tmp_path / "study")
    with found.writing():
        pass
    return found


def test_a_record_has_the_time_of_all_phases_and_digests_of_what_is_there(folder: StudyFolder) -> None:
    place = ended(folder, "a-0")
    assert folder.record("a-0") is None
    record = folder.record_done("a-0")
    assert folder.record("a-0") == record
    assert (record["state"], record["seconds"], record["error"]) == ("done", 1.75, None)
    assert set(record["sha256"]) == {"scores.json", "ledger.json"}
    assert folder.verified("a-0") == place


def test_the_checkpoints_of_a_run_that_is_done_are_removed(folder: StudyFolder) -> None:
    place = ended(folder, "a-0")
    folder.record_done("a-0")
    assert not (place / "checkpoints").exists()


@pytest.mark.parametrize("name", ["scores.json", "ledger.json"])
def test_results_that_were_changed_since_are_refused(name: str, folder: StudyFolder) -> None:
    place = ended(folder, "a-0")
    folder.record_done("a-0")
    (place / name).write_text((place / name).read_text() + "\n")
    message = rf"Results of the run 'a-0' were changed since they were made \({name}\): restore it, or delete .*a-0"
    with pytest.raises(StudyError, match=message):
        folder.verified("a-0")
    (place / name).unlink()
    with pytest.raises(StudyError, match=message.replace("changed since they were made", "lost")):
        folder.verified("a-0")


def test_a_run_that_failed_or_never_ended_has_no_results(folder: StudyFolder) -> None:
    folder.record_failed("a-0", 2.0, Fault(type="DataError", message="no such folder", exit_code=4))
    record = folder.record("a-0")
    assert record is not None
    assert (record["state"], record["error"]) == (
        "failed",
        {"type": "DataError", "message": "no such folder", "exit_code": 4},
    )
    for run in ("a-0", "a-1"):
        with pytest.raises(StudyError, match=f"The run '{run}' .* is not done"):
            folder.verified(run)
    folder.forget("a-0")
    assert folder.record("a-0") is None


@pytest.mark.parametrize("content", ["{", "[]", '{"id": "a-0"}'])
def test_a_damaged_record_is_named(content: str, folder: StudyFolder) -> None:
    folder.record_file("a-0").write_text(content)
    with pytest.raises(StudyError, match=r"a-0\.json' is damaged: restore it, or delete it"):
        folder.record("a-0")


def test_one_process_writes_a_folder_and_its_lock_is_that_of_a_run(folder: StudyFolder) -> None:
    held, told = os.pipe()
    process = os.fork()
    if process == 0:
        with folder.writing():
            os.write(told, b"!")
            signal.pause()
        os._exit(0)
    try:
        os.read(held, 1)
        with pytest.raises(OutputError, match=f"Process {process} is writing"), folder.writing():
            pass
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(held)
        os.close(told)
    with folder.writing():
        pass


def test_a_folder_that_cannot_be_made_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match=r"cannot be made .*choose another --out"),
        StudyFolder(tmp_path / "file" / "study").writing(),
    ):
        pass


def test_a_folder_is_of_one_study_one_preset_and_one_place_of_data(folder: StudyFolder, tiny_study: Studies) -> None:
    design = tiny_study()
    assert folder.keep_design(design, threads=2, data="/pictures") == (2, "/pictures")
    with pytest.raises(StudyError, match=r"The runs in .* read '/pictures'; give that as --data"):
        folder.keep_design(design, threads=2, data="/others")
    other = tiny_study(lambda found: found.update(name="other"))
    with pytest.raises(StudyError, match="holds the study 'tiny' at preset 'smoke'; choose another --out"):
        folder.keep_design(other, threads=2, data="/pictures")


def test_runs_go_on_with_the_threads_and_the_data_that_the_first_ones_had(
    folder: StudyFolder, tiny_study: Studies
) -> None:
    folder.keep_design(tiny_study(), threads=3, data="/pictures")
    assert folder.keep_design(tiny_study(), threads=1, data=None) == (3, "/pictures")
    told = folder.designed()
    assert told["runs"]["low"]["pretrain"] == told["runs"]["high"]["pretrain"]
    assert told["searched"] == {}


@pytest.mark.parametrize(
    ("change", "restated"),
    [
        (lambda found: found.update(seeds={"pretrain": 3, "finetune": 1}), True),
        (lambda found: found["hypotheses"][0].update(margin=1.0), True),
        (lambda found: found["stages"]["finetune"]["budget"].update(steps=3), True),
        (lambda found: found["factors"]["rate"]["levels"].update(higher={"finetune.optimiser.lr": 0.1}), False),
        (lambda found: found["hypotheses"].append({**found["hypotheses"][0], "name": "another"}), False),
        (lambda found: found.update(question="Does it?"), False),
    ],
    ids=["seeds", "margin", "recipe", "another arm", "another hypothesis", "words"],
)
def test_a_study_that_changes_what_it_is_judged_by_is_restated_once_there_is_something_to_see(
    folder: StudyFolder, tiny_study: Studies, change: Any, restated: bool
) -> None:
    first, changed = tiny_study(), tiny_study(change)
    folder.keep_design(first, threads=1, data=None)
    for design in (changed, first):  # nothing has ended: one may still think
        folder.keep_design(design, threads=1, data=None)
        assert not folder.restated(design)
    run = first.runs_of["low", "finetune"][0][0]
    ended(folder, run)
    folder.record_done(run)
    for _ in range(2):
        folder.keep_design(changed, threads=1, data=None)
        assert folder.restated(changed) == restated
    folder.keep_design(first, threads=1, data=None)
    assert not folder.restated(first)
