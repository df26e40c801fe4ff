"""Scores unit by unit: their mean is the score, a run keeps them, and runs on the same data have the same units."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from renaissance.api import Score
from renaissance.errors import DataError
from renaissance.evaluation.outcomes import FILE, read_outcomes
from renaissance.toolkit.agreement import agreement_score, determination
from renaissance.toolkit.metrics import accuracy_score, macro_score, recalls
from renaissance.training.run import Run, run

GENERATOR = torch.Generator().manual_seed(3)
UNITS = torch.tensor([4, 1, 1, 7, 4, 9, 9, 9])
RIGHT = torch.tensor([1.0, 0, 1, 1, 0, 0, 1, 1])


def belongs() -> torch.Tensor:
    """Which of nine captions, as many as three an image, are those of which of five images."""
    found = torch.zeros(5, 9, dtype=torch.bool)
    found[torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 4]), torch.arange(9)] = True
    return found


def retrieval() -> list[Score]:
    scores = torch.rand(5, 9, generator=GENERATOR)
    return recalls(scores, scores.T, belongs())


@pytest.mark.parametrize(
    "score",
    [
        accuracy_score("accuracy", RIGHT, units=UNITS, chance=50, ties=0),
        accuracy_score("by decision", RIGHT.reshape(4, 2), units=UNITS[:4], chance=50, ties=0),
        macro_score("macro", RIGHT, torch.tensor([0, 0, 1, 1, 1, 2, 2, 2]), units=UNITS, chance=50, ties=0),
        *retrieval(),
    ],
    ids=lambda score: str(score.name),
)
def test_the_weighted_mean_of_the_outcomes_is_the_score(score: Score) -> None:
    outcomes = score.outcomes
    assert outcomes is not None
    assert outcomes.mean == pytest.approx(score.value)
    assert outcomes.weights.sum() == pytest.approx(1)
    assert len(outcomes.units) == len(outcomes.values) == score.units
    assert (np.diff(outcomes.units) > 0).all()


def test_a_unit_has_the_mean_of_its_own_decisions_weighted_by_their_number() -> None:
    outcomes = accuracy_score("accuracy", RIGHT, units=UNITS, chance=50, ties=0).outcomes
    assert outcomes is not None
    assert outcomes.units.tolist() == [1, 4, 7, 9]
    assert outcomes.values.tolist() == pytest.approx([50, 50, 100, 200 / 3])
    assert outcomes.weights.tolist() == pytest.approx([2 / 8, 2 / 8, 1 / 8, 3 / 8])


def test_a_measure_that_is_no_mean_has_no_outcomes() -> None:
    values = torch.rand(8, generator=GENERATOR)
    assert agreement_score("R2", determination, values, RIGHT, units=UNITS, chance=0, ties=0).outcomes is None


def test_outcomes_stand_in_no_row_and_in_no_comparison() -> None:
    one, two = (accuracy_score("accuracy", RIGHT, units=units, chance=50, ties=0) for units in (UNITS, UNITS + 1))
    assert "outcomes" not in one.row()
    assert one.row() == {name: getattr(one, name) for name in one.row()}
    assert one == two


# --- what a run keeps -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(tiny_spec: Callable[..., str]) -> dict[str, Any]:
    return {
        "name": "tiny",
        "start": tiny_spec("frozen both"),
        "tasks": {"itm": {}, "itc": {"options": {"width": 16}}},
        "data": {"kind": "world", "train": 8, "test": 6, "captions": 2, "image_size": 32},
        "batch": {"size": 4},
        "budget": {"steps": 2},
        "evaluation": {"tasks": {"retrieval": {}}, "outcomes": True},
    }


@pytest.fixture(scope="module")
def done(recipe: dict[str, Any], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(recipe, out=tmp_path_factory.mktemp("outcomes") / "run")


def test_the_outcomes_of_a_run_have_the_values_of_its_scores(done: Run) -> None:
    outcomes = read_outcomes(done.folder)
    rows = {"/".join(row[key] for key in ("model", "split", "task", "name")): row for row in done.scores["scores"]}
    assert outcomes.keys() == rows.keys()
    assert {key.partition("/")[0] for key in outcomes} == {"trained", "untrained"}
    for key, row in rows.items():
        assert outcomes[key].mean == pytest.approx(row["value"], abs=1e-4)
        assert outcomes[key].values.dtype == np.float32
        assert len(outcomes[key].units) == row["units"]


def test_runs_on_the_same_data_have_the_same_units_and_others_have_not(
    recipe: dict[str, Any], done: Run, tmp_path: Path
) -> None:
    key = "trained/test/itm/accuracy"
    same = run({**recipe, "seed": 1}, out=tmp_path / "same").folder
    other = run({**recipe, "data": {**recipe["data"], "seed": 1}}, out=tmp_path / "other").folder
    first, second, third = (read_outcomes(folder)[key] for folder in (done.folder, same, other))
    assert first.pairs_with(second)
    assert not first.pairs_with(third)
    assert first.units.shape == third.units.shape


def test_a_run_that_is_not_asked_for_them_keeps_none_and_says_what_to_ask(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    plain = {**recipe, "evaluation": {**recipe["evaluation"], "outcomes": False}}
    folder = run(plain, out=tmp_path / "plain").folder
    with pytest.raises(DataError, match=r"the run kept no outcomes\. Run it with evaluation\.outcomes: true"):
        read_outcomes(folder)


def test_a_damaged_file_of_outcomes_is_refused(done: Run, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes((done.folder / FILE).read_bytes()[:-9])
    with pytest.raises(DataError, match=r"holds no outcomes that can be read .* Run its recipe again"):
        read_outcomes(tmp_path)


def test_reading_outcomes_loads_no_torch(done: Run) -> None:
    code = (
        "import sys; from renaissance.evaluation.outcomes import read_outcomes\n"
        f"assert read_outcomes({str(done.folder)!r})\n"
        "print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert told.stdout.strip() == "False"
