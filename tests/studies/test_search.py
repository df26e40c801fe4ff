"""Searches inside arms: equal trials, on validation samples alone, the same again after any stop."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renaissance.errors import StoppedError, StudyError
from renaissance.recipe import load_recipe
from renaissance.studies.arms import expand
from renaissance.studies.folder import StudyFolder
from renaissance.studies.notes import failed_trials
from renaissance.studies.search import tuned
from renaissance.studies.session import _progress
from renaissance.studies.trials import FIRST_SEED, Searched, alone, runs_of_trial
from renaissance.studies.worlds import made
from tests.studies.own_process import OwnProcess

Studies = Callable[..., Any]
METRIC = "validation/itm/accuracy"


def searched(study: dict[str, Any]) -> None:
    """Tune two settings of fine-tuning by two trials in each arm; another split of the data would be there for it."""
    study["seeds"] = {"pretrain": 1, "finetune": 1}
    study["worlds"] = {"scenes": {"size": 80, "seed": 1, "layouts": ["coco-captions"], "image_size": 32}}
    study["stages"]["finetune"]["data"] = {"kind": "prepared", "path": "@scenes/coco-captions"}
    study["search"] = {
        "stage": "finetune",
        "trials": 2,
        "space": {
            "finetune.optimiser.weight_decay": {"low": 0.001, "high": 0.1},
            "finetune.optimiser.betas": [[0.9, 0.98], [0.9, 0.999]],
        },
        "metric": METRIC,
    }


@pytest.fixture(scope="module")
def study(tiny_study: Studies) -> Any:
    return tiny_study(searched)


@pytest.fixture(scope="module")
def stopped(study: Any, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """The folder of a search that was stopped after its second trial."""

    class Stopping(OwnProcess):
        ended = 0

        def wait(self, seconds: float) -> Any:
            finished = super().wait(seconds)
            Stopping.ended += 1
            if Stopping.ended == 3:
                raise StoppedError("the test has seen enough")
            return finished

    folder = StudyFolder(tmp_path_factory.mktemp("search") / "study")
    with pytest.raises(StoppedError):
        tuned(study, folder, workers=Stopping())
    return folder


@pytest.fixture(scope="module")
def found(study: Any, stopped: StudyFolder) -> dict[str, Any]:
    """What the search found when it went on."""
    return tuned(study, stopped, workers=OwnProcess())


def trials(folder: StudyFolder, arm: str) -> list[dict[str, Any]]:
    return list(json.loads(folder.search(arm).read_text())["trials"])


def test_every_arm_has_the_same_number_of_trials_and_the_best_is_taken(
    stopped: StudyFolder, found: dict[str, Any]
) -> None:
    assert set(found) == {"low", "high"}
    for arm, settings in found.items():
        listed = trials(stopped, arm)
        assert [trial["number"] for trial in listed] == [0, 1]
        best = max(listed, key=lambda trial: (trial["value"], -trial["number"]))
        assert settings == best["settings"]
        assert json.loads(stopped.search(arm).read_text())["best"] == best
    low, high = (trials(stopped, arm) for arm in found)
    assert [trial["settings"] for trial in low] == [trial["settings"] for trial in high], "drawn before scores tell"


def test_trials_are_judged_by_the_last_evaluation_in_training_and_never_measure_the_test(
    stopped: StudyFolder, found: dict[str, Any]
) -> None:
    for arm in found:
        for trial in trials(stopped, arm):
            place = stopped.verified(trial["run"])
            lines = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
            assert trial["value"] == [line[METRIC] for line in lines if METRIC in line][-1]
            assert set(json.loads((place / "scores.json").read_text())["splits"]) == {"val"}


def test_trials_never_see_the_seeds_of_the_study_and_share_what_they_start_from(
    study: Any, stopped: StudyFolder, found: dict[str, Any]
) -> None:
    runs = {path.name: load_recipe(path / "recipe.yaml") for path in (stopped.path / "runs").iterdir()}
    assert len(runs) == 5, "one pretraining, and two trials in each of two arms; none was done twice after the stop"
    assert sorted({recipe.seed for recipe in runs.values()}) == [FIRST_SEED, FIRST_SEED + 1]
    assert not runs.keys() & study.runs.keys()


@pytest.mark.parametrize(
    ("train", "judged"), [("train", ["val"]), (["train", "restval"], ["val"]), (["train", "val"], [])]
)
def test_trials_are_not_judged_on_a_split_that_they_train_on(
    tiny_study: Studies, stopped: StudyFolder, train: str | list[str], judged: list[str]
) -> None:
    def trained_on(study: dict[str, Any]) -> None:
        searched(study)
        study["stages"]["finetune"]["data"]["train"] = train

    design = tiny_study(trained_on)
    assert design.study.search is not None
    arm = Searched("low", design, design.study.search, alone(design, "low"), stopped, None)
    *_, run = runs_of_trial(arm, {}, 0)
    assert run.recipe["data"]["splits"] == run.recipe["evaluation"]["splits"] == judged


def test_a_search_that_is_done_is_not_done_again_and_says_the_same(
    study: Any, stopped: StudyFolder, found: dict[str, Any]
) -> None:
    class Refusing(OwnProcess):
        def start(self, job: Any) -> None:
            raise AssertionError(f"{job.id} was done before")

    before = {arm: stopped.search(arm).read_bytes() for arm in found}
    for arm in found:
        stopped.search(arm).unlink()
    assert tuned(study, stopped, workers=Refusing()) == found
    assert {arm: stopped.search(arm).read_bytes() for arm in found} == before


def test_what_was_found_goes_into_the_runs(study: Any, stopped: StudyFolder, found: dict[str, Any]) -> None:
    design = expand(study.study, "smoke", searched=found)
    for arm, settings in found.items():
        optimiser = design.arm(arm).recipes["finetune"]["optimiser"]
        assert optimiser["weight_decay"] == settings["finetune.optimiser.weight_decay"]
        assert list(optimiser["betas"]) == settings["finetune.optimiser.betas"]
    stopped.keep_design(design, threads=1, data=None)
    assert stopped.designed()["searched"] == found


def test_failed_trials_count_and_an_arm_in_which_all_failed_is_named(tiny_study: Studies, tmp_path: Path) -> None:
    def wrong(study: dict[str, Any]) -> None:
        searched(study)
        study["stages"] = {"finetune": {**study["stages"]["finetune"], "start": study["stages"]["pretrain"]["start"]}}
        study["seeds"] = {"finetune": 1}
        study["search"] |= {"metric": "validation/itm/acuracy"}

    folder = StudyFolder(tmp_path / "study")
    message = r"every trial of the arm 'low' failed, the first one as 'finetune-trial0-.*has no score 'acuracy'"
    study = tiny_study(wrong)
    with pytest.raises(StudyError, match=message):
        tuned(study, folder, workers=OwnProcess())
    assert [trial["value"] for trial in trials(folder, "high")] == [None, None]
    noted = failed_trials(study, folder)
    assert [line.partition(":")[0] for line in noted] == ["Search of 'low'", "Search of 'high'"]
    assert all(f"'{trial['run']}'" in noted[1] for trial in trials(folder, "high"))


def test_a_failed_trial_is_named_and_tried_again_where_that_is_asked_for(tiny_study: Studies, tmp_path: Path) -> None:
    """What trials start from reads a folder that is not there yet."""
    place, worlds = tmp_path / "later", StudyFolder(tmp_path / "worlds")

    def change(study: dict[str, Any]) -> None:
        searched(study)
        study["stages"]["pretrain"]["data"] = {"kind": "prepared", "path": str(place)}

    class Counting(OwnProcess):
        begun: list[str] = []  # noqa: RUF012  # of all of them

        def start(self, job: Any) -> None:
            self.begun.append(job.id)
            super().start(job)

    study, folder = tiny_study(change), StudyFolder(tmp_path / "study")
    for _ in range(2):
        with pytest.raises(StudyError, match="every trial of the arm 'low' failed, the first one as 'pretrain-trial-"):
            tuned(study, folder, workers=Counting())
    (failed,) = Counting.begun
    assert {trial["failed"] for arm in ("low", "high") for trial in trials(folder, arm)} == {failed}
    folder.study.write_text(json.dumps(study.study.model_dump(mode="json", by_alias=True)))
    (told,) = [_progress(study.study, "smoke", folder)]
    assert told["search"] == [{"arm": arm, "trials": 2, "failed": 2} for arm in ("low", "high")]
    assert [(one["id"], one["type"]) for one in told["failed"]] == [(failed, "DataError")]
    shutil.copytree(made(study.study, worlds, {"scenes/coco-captions"})["scenes/coco-captions"], place)
    found = tuned(study, folder, workers=Counting(), retry_failed=True, keep="results")
    assert set(found) == {"low", "high"}
    assert Counting.begun[:2] == [failed, failed]
    assert len(set(Counting.begun)) == len(Counting.begun) - 1 == 5, "each once, but for the one that failed"
    assert not list(folder.path.glob("runs/*/model"))
    assert [trial["failed"] for trial in trials(folder, "low")] == [None, None]
    assert tuned(study, folder, workers=Counting()) == found
    assert len(Counting.begun) == 6


def test_a_trial_that_needs_weights_that_were_given_up_has_them_made_again(
    study: Any, stopped: StudyFolder, found: dict[str, Any], tmp_path: Path, telling: Any
) -> None:
    folder = StudyFolder(shutil.copytree(stopped.path, tmp_path / "study"))
    tuned(study, folder, workers=OwnProcess(), keep="results")
    (shared,) = [path.name for path in (folder.path / "runs").iterdir() if path.name.startswith("pretrain-")]
    lost = trials(folder, "high")[1]["run"]
    folder.discard(lost)
    values = {arm: trials(folder, arm) for arm in found}
    assert tuned(study, folder, workers=OwnProcess(), progress=telling) == found
    assert telling.lines[0].startswith(f"'{shared}' is run again: its weights were given up")
    assert {arm: trials(folder, arm) for arm in found} == values


def test_nothing_is_found_where_nothing_is_searched(tiny_study: Studies, tmp_path: Path) -> None:
    assert tuned(tiny_study(), StudyFolder(tmp_path / "study"), workers=OwnProcess()) == {}
    assert not (tmp_path / "study").exists()
