"""Settings tuned inside each arm, by equally many trials in every arm, on validation samples alone, by Optuna.

A trial is a run like others: it is done once, and a search that was killed asks again for what it asked before, hears
what came of it, and goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from renaissance.data.prepared import manifest_of
from renaissance.durable import write_atomically
from renaissance.errors import StudyError
from renaissance.progress import Progress, Silent, closing
from renaissance.studies.arms import REFERENCE, Design, PlannedRun, expand, started_from, worlds_of
from renaissance.studies.design import Range, Search, Settings, Study
from renaissance.studies.folder import FORMAT, Record, StudyFolder
from renaissance.studies.runner import opened_course
from renaissance.studies.workers import Workers

# seeds of trials; those of the study's runs are all below, so that nothing is tuned on them
FIRST_SEED = 2**30
# updates between evaluations: there is the one after the last update
ONCE = 2**40
# what corpora call the split that models are chosen by
VALIDATION = ("val", "validation", "dev")


def tuned(
    design: Design,
    folder: StudyFolder,
    *,
    workers: Workers,
    progress: Progress | None = None,
    data: str | Path | None = None,
) -> dict[str, Settings]:
    """Search in each arm that has the searched stage; return the best settings by arm, {} where nothing is searched.

    design: of the arms before any search; `expand(..., searched=)` takes what comes back. workers: closed at the end.

    Raises:
        StudyError: every trial of an arm failed; or as `run_study` raises it.
        StoppedError: Ctrl-C or SIGTERM stopped it.
    """
    search = design.study.search
    if search is None:
        return {}
    told = progress or Silent()
    with closing(told), folder.writing():
        try:
            course = opened_course(design, folder, workers, told, data)
            arms = [arm.name for arm in design.arms if search.stage in arm.recipes]
            source = _Searches([_ArmSearch(arm, design, folder, search, course.data) for arm in arms])
            course.drive(source)
        finally:
            workers.close()
    return {arm.name: arm.best() for arm in source.arms}


@dataclass(frozen=True, slots=True)
class Trial:
    """Settings that were tried, the run that did, and the score that it had; None: it failed."""

    number: int
    settings: Settings
    run: str
    value: float | None


class _Searches:
    """The searches of all arms, one trial of each at a time: what it gave decides what is tried next."""

    def __init__(self, arms: list[_ArmSearch]) -> None:
        self.arms = arms
        self.total = sum(arm.search.trials for arm in arms)
        self._begun: set[str] = set()
        for arm in arms:
            arm.advance()

    def next(self) -> PlannedRun | None:
        """Return a run that an arm waits for and that nobody does; arms share runs whose recipes are the same."""
        for run in (arm.wanted() for arm in self.arms):
            if run is not None and run.id not in self._begun:
                self._begun.add(run.id)
                return run
        return None

    def ended(self, run: PlannedRun, record: Record) -> None:
        """Let all arms go on as far as they can."""
        for arm in self.arms:
            arm.advance()

    def counts(self) -> tuple[int, Counter[str]]:
        """Return how many trials have ended, and how many are left."""
        ended = sum(len(arm.trials) for arm in self.arms)
        return ended, Counter({self.arms[0].search.stage: self.total - ended} if self.arms else {})

    def arms_of(self, run: str) -> list[str]:
        """Return the arms that a run is a trial of, now or before."""
        return [arm.name for arm in self.arms if run in {*(one.id for one in arm.runs), *(t.run for t in arm.trials)}]


@dataclass(slots=True)
class _ArmSearch:
    """The search of one arm. runs: those of the trial that goes on, the one that is judged last."""

    name: str
    design: Design
    folder: StudyFolder
    search: Search
    data: str | None
    trials: list[Trial] = field(default_factory=list)
    runs: list[PlannedRun] = field(default_factory=list)
    settings: Settings = field(default_factory=dict)
    asked: optuna.trial.Trial | None = None
    study: optuna.Study = field(init=False)
    alone: Study = field(init=False)

    def __post_init__(self) -> None:
        self.study, self.alone = _study(self.search), _alone(self.design, self.name)

    def wanted(self) -> PlannedRun | None:
        """Return the run that the arm waits for; None: its trials are done."""
        return next((run for run in self.runs if self.folder.record(run.id) is None), None)

    def advance(self) -> None:
        """Hear what came of the trial, as long as that is known, and ask for the next one."""
        while len(self.trials) < self.search.trials:
            if self.asked is None:
                self._ask()
            records = [self.folder.record(run.id) for run in self.runs]
            failed = any(record is not None and record["state"] == "failed" for record in records)
            if not failed and None in records:
                return
            self._tell(None if failed else self._value(self.runs[-1].id))

    def best(self) -> Settings:
        """Return the settings with the highest score, the first of equals.

        Raises:
            StudyError: every trial failed.
        """
        best = self._best()
        if best is None:
            run = self.trials[0].run
            record = self.folder.record(run)
            error = record["error"] if record is not None else None
            told = f" ({error['message']})" if error else ""
            records = self.folder.record_file(f"{self.search.stage}-trial*")
            raise StudyError(
                f"'{self.design.study.name}': every trial of the arm '{self.name}' failed, the first one as '{run}'"
                f"{told}; mend what it says, then delete {records}."
            )
        return best.settings

    def _best(self) -> Trial | None:
        return max((trial for trial in self.trials if trial.value is not None), key=_by_value, default=None)

    def _ask(self) -> None:
        self.asked = self.study.ask(_distributions(self.search))
        self.settings = {path: _value(self.search, path, drawn) for path, drawn in self.asked.params.items()}
        self.runs = list(_runs_of_trial(self, self.asked.number))

    def _tell(self, value: float | None) -> None:
        assert self.asked is not None, "it was asked before"
        if value is None:
            self.study.tell(self.asked, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(self.asked, value)
        self.trials.append(Trial(self.asked.number, self.settings, self.runs[-1].id, value))
        self.asked, self.runs = None, []
        self._write()

    def _value(self, run: str) -> float | None:
        """Return the score of the last evaluation in a run's training; None where it is no number."""
        lines = (self.folder.verified(run) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        told = [line[self.search.metric] for line in map(json.loads, lines) if self.search.metric in line]
        value = float(told[-1]) if told and told[-1] is not None else math.nan
        return value if math.isfinite(value) else None

    def _write(self) -> None:
        best = self._best()
        facts = {
            "format": FORMAT,
            "arm": self.name,
            "stage": self.search.stage,
            "metric": self.search.metric,
            "of": self.search.trials,
            "trials": [_facts(trial) for trial in self.trials],
            "best": None if best is None else _facts(best),
        }
        write_atomically(self.folder.search(self.name), json.dumps(facts, indent=1) + "\n")


# --- what is drawn ----------------------------------------------------------------------------------------------------


def _study(search: Search) -> optuna.Study:
    """Return a search that draws the same in every arm until scores tell arms apart."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    drawn_first = min(10, max(2, search.trials // 3))
    sampler = optuna.samplers.TPESampler(seed=search.seed, n_startup_trials=drawn_first)
    return optuna.create_study(direction="maximize", sampler=sampler)


def _distributions(search: Search) -> dict[str, BaseDistribution]:
    return {
        path: FloatDistribution(space.low, space.high, log=space.log)
        if isinstance(space, Range)
        else CategoricalDistribution(tuple(range(len(space))))
        for path, space in search.space.items()
    }


def _value(search: Search, path: str, drawn: Any) -> Any:
    """Return the value of a setting: one of those listed, or a number that can be read."""
    space = search.space[path]
    return float(f"{drawn:.4g}") if isinstance(space, Range) else space[drawn]


def _by_value(trial: Trial) -> tuple[float, int]:
    return (-math.inf if trial.value is None else trial.value), -trial.number


def _facts(trial: Trial) -> dict[str, Any]:
    return {"number": trial.number, "settings": trial.settings, "run": trial.run, "value": trial.value}


# --- the runs of a trial ----------------------------------------------------------------------------------------------


def _runs_of_trial(arm: _ArmSearch, number: int) -> Iterator[PlannedRun]:
    """Yield the runs that a trial takes: those of earlier stages, which trials share where they can, then its own."""
    design, search = arm.design, arm.search
    recipes = expand(arm.alone, design.preset, searched={arm.name: arm.settings}).arm(arm.name).recipes
    stages = [search.stage]
    while (earlier := started_from(recipes[stages[0]])) is not None:
        stages.insert(0, earlier)
    after: str | None = None
    for stage in stages:
        recipe: dict[str, Any] = deepcopy(dict(recipes[stage]))
        judged = stage == search.stage
        recipe = _judged(recipe, search, arm) if judged else recipe
        recipe["seed"] = FIRST_SEED + number if judged else FIRST_SEED
        if after is not None:
            recipe["start"]["model"] = f"{REFERENCE}{after}"
        run = PlannedRun("", stage, (recipe["seed"],), recipe, after)
        run = replace(run, id=f"{stage}-trial{f'{number}' if judged else ''}-{_digest(design, recipe)}")
        yield run
        after = run.id


def _alone(design: Design, arm: str) -> Study:
    """Return the study with this arm and one seed alone, which is soon expanded."""
    size = design.size.model_copy(update={"arms": (arm,), "seeds": {}})
    seeds = dict.fromkeys(design.study.seeds, 1)
    return design.study.model_copy(update={"presets": {design.preset: size}, "seeds": seeds})


def _judged(recipe: dict[str, Any], search: Search, arm: _ArmSearch) -> dict[str, Any]:
    """Return the recipe of a trial, which measures what it is judged by, and as little else as a run can."""
    evaluation: dict[str, Any] = recipe["evaluation"]
    evaluation |= {"data": {}, "untrained": False, "shuffled": False, "blind": None, "bridge": None, "primary": None}
    evaluation |= {"every": ONCE} | ({"outcomes": False} if "outcomes" in evaluation else {})
    split = _validation_split(recipe["data"], arm)
    if split is not None:  # what is for the test is then not even measured
        recipe["data"]["splits"] = evaluation["splits"] = [split]
    kept = evaluation["splits"]
    evaluation["waive"] = [name for name in evaluation["waive"] if "/" not in name and (not kept or name in kept)]
    return {**recipe, "keep_best": search.metric, "save_best": False, "trackers": []}


def _validation_split(data: Mapping[str, Any], arm: _ArmSearch) -> str | None:
    """Return the split of prepared data that models are chosen by, if there is one."""
    if data["kind"] != "prepared":
        return None
    made = next((arm.folder.prepared(world, layout) for _, world, layout in worlds_of({"data": data})), None)
    given = data["path"] or arm.data
    assert given is not None, "who opened the folder has checked it"
    splits = manifest_of(made or Path(given).expanduser())["splits"]
    return next((name for name in VALIDATION if name in splits and name != data["train"]), None)


def _digest(design: Design, recipe: Mapping[str, Any]) -> str:
    """Return what all that decides a trial is known by."""
    named = {world for _, world, _ in worlds_of(recipe)}
    worlds = {name: design.study.worlds[name].model_dump(mode="json", exclude={"layouts"}) for name in named}
    content = {"recipe": {key: value for key, value in recipe.items() if key != "name"}, "worlds": worlds}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
