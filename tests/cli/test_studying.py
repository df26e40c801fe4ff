"""`study`: from a page of YAML to verdicts and a report, each run once; what is wrong is one line and an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from renaissance.cli import main
from renaissance.cli.app import app
from renaissance.studies.library import names

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def given(tiny: str) -> dict[str, Any]:
    """Return a study of two runs that take a second each."""
    return {
        "name": "rates",
        "question": "Does a higher rate score higher?",
        "scope": "drawn scenes",
        "stages": {
            "train": {
                "start": tiny,
                "tasks": {"itm": {}},
                "data": {"kind": "world", "train": 16, "test": 8, "captions": 2, "image_size": 32},
                "batch": {"size": 4},
                "budget": {"steps": 2},
                "schedule": {"warmup_steps": 1},
                "evaluation": {"untrained": False, "shuffled": False},
            }
        },
        "seeds": {"train": 1},
        "factors": {
            "rate": {
                "about": "The learning rate.",
                "varies": ["train.optimiser.lr"],
                "levels": {"low": {}, "high": {"train.optimiser.lr": 0.01}},
            }
        },
        "hypotheses": [
            {
                "name": "higher",
                "kind": "greater",
                "says": "A higher rate scores higher.",
                "weights": {"high": 1, "low": -1},
                "metric": "train/test/itm/accuracy",
            }
        ],
        "primary": "higher",
        "presets": {"smoke": {"about": "whether it runs", "verdicts": "none"}, "cpu": {"about": "the same"}},
    }


@pytest.fixture(scope="module")
def file(tiny_spec: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "rates.yaml"
    path.write_text(json.dumps(given(tiny_spec())))
    return path


@pytest.fixture(scope="module")
def done(file: Path, cache: Path) -> Path:
    """Run the study by its name alone; return its folder."""
    folder = file.parent / "out"
    assert main(["study", str(file), "--preset", "smoke", "--out", str(folder)]) == 0
    return folder


# --- before a run -----------------------------------------------------------------------------------------------------


def test_list_has_each_study_that_ships_with_its_sizes(cli: Cli) -> None:
    assert all(name in cli("study", "list").out for name in names())
    listed = {one["name"]: one for one in cli("study", "list", "--json").json()["studies"]}
    assert set(listed) == set(names())
    assert "smoke" in listed["freezing-world"]["presets"]
    assert "freezing-world" in listed["renaissance-2411"]["studies"]


def test_plan_shows_arms_runs_and_what_they_take(cli: Cli, file: Path) -> None:
    told = cli("study", "plan", str(file), "--preset", "smoke")
    assert told.code == 0
    assert {line.split()[0] for line in told.out.splitlines() if line.startswith(("low", "high"))} == {"low", "high"}
    assert "2 runs in all" in told.err
    (facts,) = cli("study", "plan", str(file), "--preset", "smoke", "--json").json()["plans"]
    assert (facts["study"], facts["runs"], [one["arm"] for one in facts["arms"]]) == ("rates", 2, ["low", "high"])
    assert all(one["flops"] > 0 for one in facts["arms"])


def test_status_before_a_run_has_all_to_come(cli: Cli, file: Path, tmp_path: Path) -> None:
    (found,) = cli("study", "status", str(file), "--out", str(tmp_path / "none"), "--json").json()["studies"]
    assert [row["to come"] for row in found["arms"]] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["run", "freezing-wrld"], 20, "Did you mean 'freezing-world'?"),
        (["plan", "freezing-world", "--preset", "smok"], 20, "Did you mean 'smoke'?"),
        (["status", "FILE", "--preset", "paper"], 20, "has no preset 'paper'; it has: smoke, cpu."),
        (["report", "FILE", "--out", "nowhere"], 20, "'renaissance study run' begins one"),
        (["plan", "NO-YAML"], 2, "list.yaml"),
        (["run", "FILE", "--launcher", "slurm"], 2, "'--launcher'"),
        (["run", "FILE", "--jobs", "0"], 2, "'--jobs'"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(
    cli: Cli, file: Path, tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    wrong = tmp_path / "list.yaml"
    wrong.write_text("a: [1\n")
    places = {"FILE": str(file), "NO-YAML": str(wrong)}
    result = cli("study", *(places.get(word, word) for word in arguments))
    assert result.code == code
    assert result.out == ""
    assert told in result.err
    assert result.err.count("\n") == 1


def test_unequal_arms_are_refused_by_plan(cli: Cli, tiny_spec: Callable[..., str], tmp_path: Path) -> None:
    study = given(tiny_spec())
    study["factors"]["rate"]["levels"]["high"]["train.batch.size"] = 8
    path = tmp_path / "unequal.yaml"
    path.write_text(json.dumps(study))
    result = cli("study", "plan", str(path), "--preset", "smoke")
    assert result.code == 20
    assert "sets 'train.batch.size', which its 'varies' does not name" in result.err


def test_studies_and_their_presets_complete() -> None:
    study: Any = get_command(app).commands["study"]  # type: ignore[attr-defined]  # a group
    run = study.commands["run"]
    named, preset = (next(one for one in run.params if one.name == name) for name in ("study", "preset"))
    context = run.make_context("run", ["freezing-world"], resilient_parsing=True)
    assert "freezing-world" in [item.value for item in named.shell_complete(context, "freez")]
    assert [item.value for item in preset.shell_complete(context, "sm")] == ["smoke"]


# --- a run ------------------------------------------------------------------------------------------------------------


def test_a_run_leaves_results_and_a_report(done: Path) -> None:
    results = json.loads((done / "results.json").read_text())
    assert results["study"]["complete"]
    assert {run["state"] for run in results["runs"]} == {"done"}
    assert (done / "report.html").is_file()
    assert (done / "report.md").is_file()


def test_a_second_run_repeats_nothing(cli: Cli, file: Path, done: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.glob("runs/*/**/*") if path.is_file()}
    result = cli("study", "run", str(file), "--preset", "smoke", "--out", str(done), "--json")
    assert result.code == 0
    assert result.json()["hypotheses"][0]["verdict"] == "undecided"  # smoke gives none
    assert before == {path: path.stat().st_mtime_ns for path in done.glob("runs/*/**/*") if path.is_file()}


def test_status_after_a_run_has_nothing_to_come(cli: Cli, file: Path, done: Path) -> None:
    told = cli("study", "status", str(file), "--preset", "smoke", "--out", str(done), "--json").json()["studies"]
    assert [(row["done"], row["failed"], row["to come"]) for row in told[0]["arms"]] == [(1, 0, 0), (1, 0, 0)]
    assert told[0]["failed"] == []


def test_report_writes_the_same_bytes_again(cli: Cli, file: Path, done: Path) -> None:
    before = (done / "report.html").read_bytes()
    (done / "report.html").unlink()
    told = cli("study", "report", str(file), "--preset", "smoke", "--out", str(done), "--json").json()
    assert Path(told["report"]) == done / "report.html"
    assert (done / "report.html").read_bytes() == before


def test_results_that_were_edited_are_refused(cli: Cli, file: Path, done: Path) -> None:
    scores = next(done.glob("runs/*/scores.json"))
    kept = scores.read_bytes()
    try:
        scores.write_bytes(kept.replace(b'"accuracy"', b'"accuracy" ', 1))
        result = cli("study", "report", str(file), "--preset", "smoke", "--out", str(done))
    finally:
        scores.write_bytes(kept)
    assert result.code == 20
    assert "were changed since they were made (scores.json)" in result.err
