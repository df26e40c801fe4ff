"""What is looked at: the first samples, what is right by construction, and nothing that is picked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import renaissance
from renaissance.data.records import Record
from renaissance.explaining import gradients
from renaissance.explaining.explainer import weights_digest
from renaissance.pretrained import from_pretrained
from renaissance.progress import Silent
from renaissance.recipe import load_recipe
from renaissance.spec import TwoTowerSpec
from renaissance.studies import looking
from renaissance.studies.arms import Design
from renaissance.studies.folder import StudyFolder
from renaissance.studies.looking import SHOWN, TOP, _cases, _forget_others, look
from renaissance.studies.runner import run_study
from tests.studies.own_process import OwnProcess

SAMPLES = 8


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def two_arms(study: dict[str, Any]) -> None:
    """Change the tiny study to one stage with an arm that can retrieve and one that cannot."""
    study["stages"] = {"pretrain": {**study["stages"]["pretrain"], "budget": {"steps": 2}}}
    study["seeds"] = {"pretrain": 1}
    levels = {"dual": {"pretrain.tasks": {"itm": {}, "itc": {}}}, "match": {}}
    study["factors"] = {"task": {"about": "The tasks.", "varies": ["pretrain.tasks"], "levels": levels}}
    metric, weights = "pretrain/test/itm/accuracy", {"dual": 1, "match": -1}
    study["hypotheses"] = [{**study["hypotheses"][0], "metric": metric, "weights": weights}]


@pytest.fixture(scope="module")
def design(tiny_study: Callable[..., Design]) -> Design:
    return tiny_study(two_arms)


@pytest.fixture(scope="module")
def told() -> Said:
    return Said()


@pytest.fixture(scope="module")
def looked(design: Design, told: Said, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """Return a study that was looked at; an explanation that is there already is not made again."""
    folder = StudyFolder(tmp_path_factory.mktemp("looked") / "study")
    assert run_study(design, folder, workers=OwnProcess()).complete
    folder.explanation("dual").mkdir(parents=True)
    look(design, folder, told)
    return folder


def cases_of(folder: StudyFolder) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(folder.cases("dual").read_text())
    return found


def test_each_case_is_what_the_model_retrieves_with_its_own_picture(looked: StudyFolder, design: Design) -> None:
    cases = cases_of(looked)
    run = design.runs_of["dual", "pretrain"][0][0]
    assert {(case["arm"], case["run"]) for case in cases} == {("dual", run)}
    assert {case["kind"] for case in cases} == {"image->text", "text->image"}
    model = from_pretrained(looked.run(run) / "model")
    for case in cases:
        with Image.open(looked.path / case["image"]) as file:
            picture = file.convert("RGB")
        assert len(case["top"]) == TOP
        scores = [one["score"] for one in case["top"]]
        assert scores == sorted(scores, reverse=True)
        if case["kind"] == "image->text":
            found = model.embed(images=[picture], texts=[one["text"] for one in case["top"]])
            assert found.images is not None
            assert found.texts is not None
            assert scores == pytest.approx((found.images @ found.texts.T)[0].tolist(), abs=1e-3)
        assert case["right"] == case["top"][0]["right"] == (case["top"][0]["text"] == case["query"])


def test_the_first_samples_are_taken_and_none_is_picked(looked: StudyFolder) -> None:
    for kind in ("image->text", "text->image"):
        for right in (True, False):
            found = [case["image"] for case in cases_of(looked) if (case["kind"], case["right"]) == (kind, right)]
            assert found == sorted(found)
            assert len(found) <= SHOWN
        queries = {case["image"] for case in cases_of(looked) if case["kind"] == kind}
        assert len(queries) >= min(SAMPLES, SHOWN)  # of so few all are shown, but for a seventh of one sort


def test_an_arm_that_cannot_retrieve_has_none_and_that_is_said(looked: StudyFolder, told: Said) -> None:
    assert not looked.cases("match").exists()
    assert not looked.explanation("match").exists()
    assert [line for line in told.lines if line.startswith("'match' is not looked at: ")]


def test_layers_are_compared_with_what_they_were_before_the_first_update(looked: StudyFolder, design: Design) -> None:
    told = json.loads((looked.beginning("dual") / "explanation.json").read_text())
    run = design.runs_of["dual", "pretrain"][0][0]
    assert told["model"]["name"] == "model"
    trained = from_pretrained(looked.run(run) / "model")
    assert told["model"]["sha256"] == weights_digest(trained.assembly) != told["against"]["sha256"]
    recipe = load_recipe(looked.run(run) / "recipe.yaml")
    assert isinstance(recipe.start, TwoTowerSpec)
    began = renaissance.build(recipe.start, tasks=("itm", "itc"), seed=recipe.seed)
    assert told["against"]["sha256"] == weights_digest(began.assembly)
    assert 0 < max(row["weights"] or 0 for row in told["drift"]) < 1
    assert [row["layer"] for row in told["probes"]] == [row["layer"] for row in told["probes_against"]]


def test_a_pair_whose_attributions_do_not_add_up_is_left_out_alone(
    looked: StudyFolder, design: Design, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "STEPS", 1)
    monkeypatch.setattr(looking, "PROBED", 24)
    monkeypatch.setattr(gradients, "HALVINGS", 0)
    folder, told = StudyFolder(shutil.copytree(looked.path, tmp_path / "study")), Said()
    folder.explanation("dual").rmdir()
    look(design, folder, told)
    (line,) = [line for line in told.lines if line.startswith("'dual'")]
    assert line.startswith("'dual': no pair of it is explained: ")
    explained = json.loads((folder.explanation("dual") / "explanation.json").read_text())
    assert explained["sample"] is None
    assert explained["shares"]
    assert explained["probes"]


def test_a_second_look_writes_nothing(looked: StudyFolder, design: Design, told: Said) -> None:
    before = {path: path.stat().st_mtime_ns for path in looked.path.rglob("*")}
    look(design, looked, told)
    assert {path: path.stat().st_mtime_ns for path in looked.path.rglob("*")} == before


def test_without_weights_what_was_looked_at_stays_and_what_was_not_is_said(
    looked: StudyFolder, design: Design, tmp_path: Path
) -> None:
    folder, told = StudyFolder(shutil.copytree(looked.path, tmp_path / "study")), Said()
    for run in design.runs:
        folder.remove_model(run)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    assert look(design, folder, told) == set()
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before
    (run,) = design.runs_of["match", "pretrain"][0]
    assert told.lines == [f"'match' is not looked at: the weights of its run '{run}' were given up"]


@pytest.mark.parametrize(("run", "kept"), [("pretrain-0-own", True), ("pretrain-0-before", False)])
def test_what_shows_the_model_of_another_run_is_removed(tmp_path: Path, run: str, kept: bool) -> None:
    folder = StudyFolder(tmp_path)
    for place in (folder.cases("dual").parent, folder.explanation("dual")):
        place.mkdir(parents=True)
    folder.cases("dual").write_text(json.dumps([{"run": run}]))
    _forget_others(folder, "dual", "pretrain-0-own")
    assert folder.cases("dual").exists() == folder.explanation("dual").exists() == kept


# --- by construction --------------------------------------------------------------------------------------------------


class Nothing:
    """A picture that nobody looks at."""

    def read(self) -> bytes:
        raise AssertionError("it is not read")


def samples(*captions: str) -> list[Record]:
    return [Record(str(number), Nothing(), (text,), f"row {number}") for number, text in enumerate(captions)]


def test_a_query_is_right_where_its_own_candidate_is_nearest() -> None:
    likeness = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.1, 0.0], [0.0, 0.2, 0.3]])
    found = list(_cases("text->image", likeness, samples("a", "b", "c"), "arm", "run"))
    assert [(case["query"], case["right"]) for case in found] == [("a", True), ("b", False), ("c", True)]
    assert [one["text"] for one in found[1]["top"]] == ["a", "b", "c"]
    assert [one["right"] for one in found[1]["top"]] == [False, True, False]
    assert found[1]["top"][0]["score"] == pytest.approx(0.8)


def test_a_caption_that_two_images_share_is_right_for_either() -> None:
    likeness = torch.tensor([[0.1, 0.9], [0.1, 0.9]])
    assert all(case["right"] for case in _cases("image->text", likeness, samples("a", "a"), "arm", "run"))


@pytest.mark.parametrize("shift", [0, 1])
def test_of_right_and_of_wrong_cases_only_the_first_are_shown(shift: int) -> None:
    many = SHOWN + 3
    likeness = torch.eye(many).roll(shift, dims=1)
    found = list(_cases("image->text", likeness, samples(*map(str, range(many))), "arm", "run"))
    assert [case["query"] for case in found] == [str(number) for number in range(SHOWN)]
    assert {case["right"] for case in found} == {shift == 0}
