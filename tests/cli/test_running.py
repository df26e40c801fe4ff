from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from PIL import Image

from renaissance.cli import main
from renaissance.cli.running import changed
from renaissance.errors import SpecError
from renaissance.recipe import validate_recipe

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

RECIPE = """
name: small
start: >-
  tiny-vit(image_size=16, layers=1, width=16, heads=2, mlp_width=16) +
  tiny-bert(layers=1, width=16, heads=2, mlp_width=16),
  random both, lxmert(layers=1, width=16, heads=2)
tasks: {itm: {}, itc: {options: {width: 8}}}
data: {kind: world, train: 8, test: 4, captions: 2, image_size: 16}
batch: {size: 4}
budget: {steps: 2}
schedule: {warmup_steps: 0}
evaluation: {tasks: {retrieval: {}}, primary: test/retrieval/R@10}
"""


class Finished(NamedTuple):
    """A run of the command line: its recipe's file, its folder, and what it printed."""

    recipe: Path
    folder: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    place = tmp_path_factory.mktemp("run")
    recipe = place / "small.yaml"
    recipe.write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch, (place / "out").open("w+") as out, (place / "err").open("w+") as err:
        patch.setenv("RENAISSANCE_CACHE", str(place / "cache"))
        patch.setattr("sys.stdout", out)
        patch.setattr("sys.stderr", err)
        code = main(["run", str(recipe), "--out", str(place / "small")])
        patch.undo()
        patch.setenv("RENAISSANCE_CACHE", str(place / "cache"))
        out.seek(0)
        err.seek(0)
        told = Finished(recipe, place / "small", out.read(), err.read())
        assert code == 0, told.err
        yield told


def test_a_run_prints_its_scores_beside_chance_and_the_untrained_model(finished: Finished) -> None:
    header = next(line for line in finished.out.splitlines() if line.startswith("split"))
    before = ["split", "task", "score", "chance", "untrained"]
    assert header.split() == [*before, "other", "images", "/", "texts", "trained", "[95%]"]
    assert any(line.split()[:3] == ["test", "itm", "accuracy"] for line in finished.out.splitlines())
    assert any("R@10 (primary)" in line for line in finished.out.splitlines())
    assert "text R@1" not in finished.out


def test_a_run_loads_its_model_back_and_says_that_it_measures_the_same(finished: Finished) -> None:
    assert "Loaded back: its itm scores on 'test' equal the trained model's." in finished.out


def test_a_run_says_where_everything_lies_and_how_long_it_took(finished: Finished) -> None:
    lines = dict(line.split(maxsplit=1) for line in finished.out.splitlines()[-7:])
    assert set(lines) == {"time", "compute", "run", "model", "scores", "log", "ledger"}
    assert re.fullmatch(r"[\d,.]+ GFLOP, 100% of what it takes with nothing frozen", lines["compute"].strip())
    assert all(Path(lines[name]).exists() for name in ("run", "model", "scores", "log"))
    assert lines["time"].startswith("training ")


def test_a_run_shows_facts_and_no_warning_of_a_library(finished: Finished) -> None:
    assert "training: 8 samples" in finished.err
    assert "Warning" not in finished.err


def test_a_folder_that_is_a_run_is_not_overwritten(cli: Cli, finished: Finished) -> None:
    result = cli("run", str(finished.recipe), "--out", str(finished.folder))
    assert result.code == 8
    assert "add --resume to continue it" in result.err


def test_what_is_no_run_cannot_be_resumed(cli: Cli, finished: Finished, tmp_path: Path) -> None:
    assert cli("run", str(finished.recipe), "--out", str(tmp_path), "--resume").code == 12


def test_resuming_a_finished_run_gives_the_same_scores_as_json(cli: Cli, finished: Finished) -> None:
    before = json.loads((finished.folder / "scores.json").read_text())
    result = cli("run", str(finished.recipe), "--out", str(finished.folder), "--resume", "--json")
    assert result.code == 0, result.err
    assert result.json()["scores"] == before["scores"]
    assert result.json()["loaded_back"]["equal"] is True


def test_evaluate_measures_a_run_on_its_own_data(cli: Cli, finished: Finished) -> None:
    trained = json.loads((finished.folder / "scores.json").read_text())["scores"]
    rows = [row for row in trained if (row["model"], row["task"]) == ("trained", "retrieval")]
    expected = {row["name"]: row["value"] for row in rows}
    result = cli("evaluate", str(finished.folder), "--task", "retrieval", "--split", "test", "--json")
    assert result.code == 0, result.err
    assert {row["name"]: row["value"] for row in result.json()["scores"]} == expected


def test_evaluate_measures_a_folder_of_pictures_whole(cli: Cli, finished: Finished, tmp_path: Path) -> None:
    _pictures(tmp_path, {"red.png": "a red square", "blue.png": "a blue square", "green.png": "a green square"})
    result = cli("evaluate", str(finished.folder), "--data", str(tmp_path), "--task", "itm")
    assert result.code == 0, result.err
    assert any(line.split()[:3] == ["all", "itm", "accuracy"] for line in result.out.splitlines())


def test_evaluate_measures_a_saved_model_on_the_data_of_its_recipe(cli: Cli, finished: Finished) -> None:
    of_run = cli("evaluate", str(finished.folder), "--task", "itm", "--split", "test", "--json")
    of_model = cli("evaluate", str(finished.folder / "model"), "--task", "itm", "--split", "test", "--json")
    assert of_model.code == 0, of_model.err
    assert of_model.json()["scores"] == of_run.json()["scores"]


def test_evaluate_of_a_model_without_data_asks_for_them(cli: Cli) -> None:
    result = cli("evaluate", "renaissance/bridge")
    assert result.code == 2
    assert "Say them with --data." in result.err


def test_evaluate_of_a_task_that_was_not_trained_names_it(cli: Cli, finished: Finished) -> None:
    result = cli("evaluate", str(finished.folder), "--task", "vqa")
    assert result.code == 11
    assert "vqa" in result.err


def test_a_bad_sample_is_an_error_or_is_skipped_and_counted(cli: Cli, finished: Finished, tmp_path: Path) -> None:
    _pictures(tmp_path, {f"{n}.png": f"picture number {n}" for n in range(40)})
    with (tmp_path / "captions.csv").open("a") as file:
        file.write("missing.png,not there\n")
    arguments = ["run", str(finished.recipe), "--data", str(tmp_path), "--set", "evaluation.primary=null"]
    failed = cli(*arguments, "--out", str(tmp_path / "one"))
    assert failed.code == 5
    assert "row 41" in failed.err
    assert not (tmp_path / "one").exists()
    skipping = (*arguments, "--out", str(tmp_path / "two"), "--on-bad-sample", "skip")
    over = cli(*skipping)
    assert (over.code, "1 of 41 rows of the data cannot be used, and skip_budget 0.001 allows 0" in over.err) == (
        4,
        True,
    )
    passed = cli(*skipping, "--set", "skip_budget=0.1")
    assert passed.code == 0, passed.err
    assert "Samples left out: 1" in passed.err


def test_an_unknown_recipe_lists_the_built_in_ones(cli: Cli) -> None:
    result = cli("run", "dmeo")
    assert result.code == 2
    assert "Did you mean 'demo'?" in result.err


def test_a_task_may_be_trained_under_its_full_name_and_measured_under_its_own(cli: Cli, tmp_path: Path) -> None:
    recipe, taken = tmp_path / "named.yaml", tmp_path / "taken"
    recipe.write_text(
        RECIPE.replace("tasks: {itm:", "tasks: {renaissance:itm:").replace("{retrieval:", "{itm: {}, retrieval:")
    )
    taken.mkdir()
    (taken / "notes.txt").touch()
    result = cli("run", str(recipe), "--out", str(taken))
    assert (result.code, "notes.txt" in result.err or "taken" in result.err) == (8, True), result.err


def test_re_ranking_without_itm_is_refused_at_once(cli: Cli, tmp_path: Path) -> None:
    recipe = tmp_path / "rerank.yaml"
    recipe.write_text(RECIPE.replace("itm: {}, ", "").replace("retrieval: {}", "retrieval: {rerank: 4}"))
    result = cli("run", str(recipe), "--out", str(tmp_path / "run"))
    assert result.code == 2
    assert "rerank orders by ITM scores; add the task 'itm', or leave rerank out" in result.err


def test_set_changes_one_key_of_the_recipe() -> None:
    recipe = validate_recipe({"start": "tiny-vit + tiny-bert, random both", "tasks": {"itm": {}}})
    new = changed(recipe, ["budget.epochs=3", "tasks.itm.weight=0.5", "data.train=100"], "skip")
    assert (new.budget.epochs, new.tasks["itm"].weight, new.data.train, new.on_bad_sample) == (3, 0.5, 100, "skip")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("budget.epochs", "is no 'key=value'"),
        ("seed.x=1", "holds a value"),
        ("budget.epoch=3", "Did you mean 'epochs'?"),
        ("seed=one", "seed"),
    ],
)
def test_a_wrong_set_says_what_is_wrong(change: str, told: str) -> None:
    recipe = validate_recipe({"start": "tiny-vit + tiny-bert, random both", "tasks": {"itm": {}}})
    with pytest.raises(SpecError, match=told.replace("?", r"\?")):
        changed(recipe, [change], None)


def _pictures(folder: Path, captions: dict[str, str]) -> None:
    for number, name in enumerate(captions):
        Image.new("RGB", (16, 16), (number * 5, 40, 250 - number * 5)).save(folder / name)
    rows = "".join(f"{name},{caption}\n" for name, caption in captions.items())
    (folder / "captions.csv").write_text(f"image,caption\n{rows}")
