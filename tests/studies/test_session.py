"""What is refused before a run, what is told of one that did not begin, and what a collection leaves out."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import renaissance
from renaissance.errors import StudyError
from renaissance.studies import session
from renaissance.studies.arms import expand
from renaissance.studies.design import Study
from renaissance.studies.folder import StudyFolder
from renaissance.studies.session import designed, needs_data, progress_of, report, study
from tests.studies.own_process import OwnProcess

Studies = Callable[..., Any]
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def file(tiny_study: Studies, tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny study, changed."""

    def write(change: Change = lambda study: None) -> Path:
        kept: dict[str, Any] = {}

        def note(data: dict[str, Any]) -> None:
            change(data)
            kept.update(deepcopy(data))

        tiny_study(note)
        path = tmp_path / "tiny.yaml"
        path.write_text(json.dumps(kept))
        return path

    return write


def test_the_public_name_is_loaded_when_it_is_used() -> None:
    assert renaissance.study is study


def test_nothing_is_begun_where_the_seeds_do_not_suffice(file: Callable[..., Path], tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        data["presets"]["smoke"]["verdicts"] = "confirmatory"
        data["hypotheses"][0]["expected"] = {"sd": 1.0, "gain": 1.0}

    with pytest.raises(StudyError, match="too few seeds"):
        study(file(change), preset="smoke", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_begun_where_arms_differ_in_what_they_imply(file: Callable[..., Path], tmp_path: Path) -> None:
    def change(data: dict[str, Any]) -> None:
        levels = {"low": {}, "high": {"finetune.batch.size": 8}}
        data["factors"]["rate"] = {"about": "The batch.", "varies": ["finetune.batch"], "levels": levels}
        data["stages"]["finetune"]["budget"] = {"epochs": 1}

    with pytest.raises(StudyError, match="in the updates of 'finetune'"):
        study(file(change), preset="smoke", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_of_kept_results_the_first_model_of_the_reference_arm_alone_stays(
    file: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "workers_of", lambda launcher, jobs: OwnProcess())
    given = file(lambda data: data.update(seeds={"pretrain": 1, "finetune": 1}, reference="high"))
    done = study(given, preset="smoke", out=tmp_path / "out", keep="results")
    assert isinstance(done, session.StudyRun)
    assert done.outcome.complete
    kept = designed(Study.model_validate_json(given.read_bytes()), "smoke", StudyFolder(done.folder))
    assert [path.parent.name for path in done.folder.glob("runs/*/model")] == kept.runs_of["high", "finetune"][0]


def test_what_is_for_other_machines_is_not_run_here(file: Callable[..., Path], tmp_path: Path) -> None:
    given = file(lambda data: data["presets"]["smoke"].update(runs_here=False))
    with pytest.raises(StudyError, match="is for other machines: 'renaissance study plan' costs it"):
        study(given, preset="smoke", out=tmp_path / "out")


def test_a_study_that_did_not_begin_has_all_runs_to_come_and_no_report(
    file: Callable[..., Path], tmp_path: Path
) -> None:
    (found,) = progress_of(file(), preset="smoke", out=tmp_path / "out")
    assert [(row["arm"], row["stage"], row["to come"], row["done"]) for row in found["arms"]] == [
        ("low", "pretrain", 2, 0),
        ("low", "finetune", 2, 0),
        ("high", "pretrain", 2, 0),
        ("high", "finetune", 2, 0),
    ]
    with pytest.raises(StudyError, match=r"There is no study in .*'renaissance study run' begins one"):
        report(file(), preset="smoke", out=tmp_path / "out")


def test_only_stages_that_name_no_folder_need_data(tiny_study: Studies) -> None:
    def images(data: dict[str, Any]) -> None:
        data["stages"]["finetune"]["data"] = {"kind": "images"}

    assert not needs_data(tiny_study().study)
    assert needs_data(tiny_study(images).study)


def test_a_design_has_what_the_search_of_its_folder_found(tiny_study: Studies, tmp_path: Path) -> None:
    given: Study = tiny_study().study
    folder = StudyFolder(tmp_path / "out")
    folder.path.mkdir()
    found: dict[str, Any] = {arm: {"finetune.optimiser.lr": rate} for arm, rate in (("low", 0.002), ("high", 0.02))}
    folder.keep_design(expand(given, "smoke", searched=found), threads=1, data=None)
    design = designed(given, "smoke", folder)
    assert design.arm("high").recipes["finetune"]["optimiser"]["lr"] == 0.02


def test_a_folder_is_judged_by_the_study_that_ran_there(file: Callable[..., Path], tmp_path: Path) -> None:
    kept = file()
    folder = StudyFolder(tmp_path / "out")
    folder.path.mkdir()
    folder.study.write_bytes(kept.read_bytes())
    changed = Study.model_validate(json.loads(kept.read_text()) | {"question": "Was it changed since?"})
    assert designed(changed, "smoke", folder).study.question != "Was it changed since?"
    with pytest.raises(StudyError, match=r"holds the study 'tiny', and not 'another'"):
        designed(changed.model_copy(update={"name": "another"}), "smoke", folder)


def test_another_study_does_not_take_the_folder_of_one(file: Callable[..., Path], tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "out")
    first = file().read_bytes()
    folder.path.mkdir()
    folder.study.write_bytes(first)
    design = expand(Study.model_validate_json(first), "smoke")
    folder.keep_design(design, threads=1, data=None)
    other = file(lambda study: study.update(name="another"))
    with pytest.raises(StudyError, match="holds the study 'tiny' at preset 'smoke'; choose another --out"):
        study(other, preset="smoke", out=folder.path)
    assert folder.study.read_bytes() == first
