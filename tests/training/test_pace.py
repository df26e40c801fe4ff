"""How long a training goes on, and what its schedule follows, by each kind of budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from accelerate import Accelerator

from renaissance.cli import main
from renaissance.errors import SpecError
from renaissance.progress import Silent
from renaissance.recipe import validate_recipe
from renaissance.recipe.training import Budget, Schedule
from renaissance.training import clock, loop
from renaissance.training.clock import Stopwatch
from renaissance.training.ledger import Ledger
from renaissance.training.ledger_file import read_ledger
from renaissance.training.optimiser import factor
from renaissance.training.pace import Pace
from renaissance.training.run import Run, run

Recipes = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")
QUICK: dict[str, Any] = {"tasks": {"itm": {}}, "evaluation": {"tasks": {"itm": {}}, "untrained": False}}


def test_updates_have_the_learning_rates_that_they_had_without_a_pace() -> None:
    for schedule in (Schedule(), Schedule(decay="cosine", warmup_steps=3), Schedule(decay="none", warmup_share=0.5)):
        pace = Pace(Budget(steps=17), schedule, 17)
        told = [pace.factor(step) for step in range(17)]
        assert told == [factor(step, 17, schedule.warmup(17), schedule.decay) for step in range(17)]


def test_what_is_spent_decides_the_learning_rate() -> None:
    pace = Pace(Budget(flops=100.0), Schedule(warmup_share=0.2), 2**40)
    rates = []
    for share in (0.1, 0.2, 0.6, 1.0):
        pace.share = share
        rates.append(pace.factor(1))
    assert rates == pytest.approx([0.5, 1.0, 0.5, 0.0])
    assert pace.over(1)


@pytest.mark.parametrize("budget", [Budget(flops=100.0), Budget(seconds=100.0)])
def test_a_warmup_whose_updates_are_not_counted_begins_above_zero(budget: Budget) -> None:
    assert Pace(budget, Schedule(warmup_share=0.2), 2**40).factor(0) == pytest.approx(1e-3)
    assert Pace(budget, Schedule(warmup_share=0.0), 2**40).factor(0) == 1.0


@pytest.mark.parametrize(
    ("budget", "told"),
    [
        ({}, "give one of 'steps', 'epochs', 'samples', 'flops' and 'seconds', and not 0"),
        ({"steps": 1, "flops": 1.0}, "and not 2"),
        ({"samples": 3}, "budget.samples is 3, which is no batch of 4"),
        ({"flops": 0.0}, "flops"),
    ],
)
def test_a_budget_is_one_figure_and_holds_a_batch(budget: dict[str, Any], told: str, tiny_recipe: Recipes) -> None:
    with pytest.raises(SpecError, match=told):
        validate_recipe(tiny_recipe(budget=budget))


def test_a_warmup_in_updates_does_not_fit_a_budget_of_seconds(tiny_recipe: Recipes) -> None:
    with pytest.raises(SpecError, match=r"set schedule\.warmup_share"):
        validate_recipe(tiny_recipe(budget={"seconds": 60.0}))


def test_a_budget_of_flops_that_holds_no_update_is_refused_before_anything_is_written(
    tiny_recipe: Recipes, tmp_path: Path
) -> None:
    recipe = tiny_recipe(budget={"flops": 1e3}, schedule={}, **QUICK)
    with pytest.raises(SpecError, match=r"budget.flops is 1000, and one update of 4 takes about .*; give more"):
        run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_seconds_that_one_update_exceeds_are_refused_with_both_figures(tiny_recipe: Recipes, tmp_path: Path) -> None:
    recipe = tiny_recipe(budget={"seconds": 1e-6}, schedule={}, **QUICK)
    with pytest.raises(
        SpecError, match=r"budget.seconds is 1e-06, and one update alone took .*; give more, and another --out"
    ):
        run(recipe, out=tmp_path / "run")


class Hours:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    own = Hours()
    monkeypatch.setattr(clock, "time", own)
    return own


def test_the_first_update_of_a_part_is_not_charged_and_neither_are_pauses(hours: Hours) -> None:
    watch = Stopwatch(10.0, charged=7.0)
    hours.now += 50.0
    assert watch.charged() == 7.0
    watch.charge()
    hours.now += 3.0
    watch.charge()
    with watch.paused():
        hours.now += 100.0
    assert watch.charged() == 10.0
    assert watch.seconds() == 63.0


def test_the_updates_that_are_not_charged_are_not_counted_in_what_one_takes(hours: Hours) -> None:
    pace, ledger, accelerator = (
        Pace(Budget(seconds=100.0), Schedule(warmup_share=0.5), 2**40),
        Ledger(CPU),
        Accelerator(),
    )
    watch, done = Stopwatch(), 0
    for part in (watch, Stopwatch(70.0, charged=20.0, updates=2)):
        for took in (50.0, 10.0, 10.0):
            hours.now += took
            part.charge()
            done += 1
        pace.note(done, ledger, part, accelerator)
        # what is spent, and one update of 10 seconds more, of the warm-up's 50
        assert pace.factor(done) == pytest.approx(min(1.0, (part.charged() + 10) / 50))
    assert (watch.updates, part.updates) == (2, 4)


def test_seconds_are_spent_by_updates_and_not_by_what_a_start_takes(
    tiny_recipe: Recipes, tmp_path: Path, hours: Hours, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.update
    took = iter([100.0, *[1.0] * 20])

    def slow(*arguments: Any, **options: Any) -> Any:
        hours.now += next(took)
        return real(*arguments, **options)

    monkeypatch.setattr(loop, "update", slow)
    done = run(tiny_recipe(budget={"seconds": 3.5}, schedule={}, **QUICK), out=tmp_path / "run")
    assert done.scores["training"]["updates"] == 1 + 4
    assert done.scores["seconds"]["training"] == 104.0


def test_a_stage_that_a_budget_never_reaches_is_told_and_stands_in_the_scores(
    tiny_recipe: Recipes, tmp_path: Path
) -> None:
    class Telling(Silent):
        lines: ClassVar[list[str]] = []

        def say(self, line: str) -> None:
            self.lines.append(line)

    stages = {"unit": "step", "stages": [{"at": 5000, "thaw": ["vision"]}]}
    start = tiny_recipe()["start"].replace("random both", "random both, frozen vision")
    recipe = tiny_recipe(start=start, budget={"flops": 1e8}, schedule={}, freezing=stages, **QUICK)
    done = run(recipe, out=tmp_path / "run", progress=Telling())
    (label,) = done.scores["training"]["stages_not_reached"]
    assert "5000" in label
    assert any(f"before the stage after {label}: it never began" in line for line in Telling.lines)


@pytest.mark.parametrize(("rule", "change"), [("", {"freeze": ["vision"]}), (", frozen vision", {"thaw": ["vision"]})])
def test_patches_are_hidden_in_no_stage_in_which_the_tower_is_frozen(
    rule: str, change: dict[str, Any], tiny_recipe: Recipes, tmp_path: Path
) -> None:
    stages = {"unit": "step", "stages": [{"at": 1, **change}]}
    start = tiny_recipe()["start"].replace("random both", f"random both{rule}")
    tasks = {"itm": {}, "mim": {"options": {"patch_size": 8}}}
    evaluation = {"tasks": {"itm": {}}, "untrained": False}
    recipe = tiny_recipe(start=start, tasks=tasks, evaluation=evaluation, budget={"steps": 4}, freezing=stages)
    when = "after update 1" if change.get("freeze") else "after the start"
    with pytest.raises(SpecError, match=f"the frozen vision tower would learn nothing from it {when}"):
        run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def of_flops(tiny_recipe: Recipes, tmp_path: Path) -> Run:
    stages = {"unit": "share", "stages": [{"at": 0.5, "thaw": ["vision"]}]}
    start = tiny_recipe()["start"].replace("random both", "random both, frozen vision")
    recipe = tiny_recipe(start=start, budget={"flops": 3e8}, schedule={}, freezing=stages, checkpoint_every=2, **QUICK)
    return run(recipe, out=tmp_path / "run")


def test_a_budget_of_flops_ends_with_the_update_that_spends_it(of_flops: Run) -> None:
    ledger = read_ledger(of_flops.folder)
    took, updates = ledger["flops"]["total"]["training"], ledger["updates"]
    assert took >= 3e8
    assert took - 2 * took / updates < 3e8
    assert updates == of_flops.scores["training"]["updates"]
    assert ledger["flops"]["vision"]["backward"] > 0, "the stage at half of the budget thaws the tower"
    assert ledger["predicted"]["itm"] > 0


def test_a_budget_of_flops_is_resumed_from_what_is_spent(
    of_flops: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = sorted((of_flops.folder / "checkpoints").iterdir())
    for path in steps[-1].iterdir():
        path.unlink()
    steps[-1].rmdir()
    for name in ("ledger.json", "scores.json"):
        (of_flops.folder / name).unlink()
    before = of_flops.scores["scores"]
    again = run(of_flops.recipe, out=of_flops.folder, resume=True)
    assert again.scores["training"]["updates"] == of_flops.scores["training"]["updates"]
    assert again.scores["scores"] == before
    assert again.scores["compute"] == of_flops.scores["compute"]
    assert main(["ledger", str(again.folder), str(again.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[str(again.folder)]["updates"] == again.scores["training"]["updates"]
    assert main(["ledger", str(again.folder)]) == 0
    assert "fusion backward FLOPs" in capsys.readouterr().out


def test_a_folder_without_a_ledger_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", str(tmp_path)]) != 0
    assert "give the folder of a run that is done" in capsys.readouterr().err
    (tmp_path / "ledger.json").write_text("{}")
    assert main(["ledger", str(tmp_path)]) != 0
    assert "is no ledger, or is damaged" in capsys.readouterr().err
