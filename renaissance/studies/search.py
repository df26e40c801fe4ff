"""Settings tuned inside each arm, by equally many trials in every arm, on validation samples alone, by Optuna.

A trial is a run like others: it is done once, and a search that was killed asks again for what it asked before, hears
what came of it, and goes on from there.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from renaissance.durable import write_atomically
from renaissance.errors import StudyError
from renaissance.progress import Progress, Silent, closing
from renaissance.studies.arms import Design, PlannedRun
from renaissance.studies.design import Range, Search, Settings
from renaissance.studies.folder import FORMAT, Record, StudyFolder
from renaissance.studies.keeping import AGAIN, Keep, missing_models
from renaissance.studies.runner import opened_course
from renaissance.studies.trials import Searched, Trial, alone, runs_of_trial
from renaissance.studies.workers import Workers


def tuned(
    design: Design,
    folder: StudyFolder,
    *,
    workers: Workers,
    progress: Progress | None = None,
    data: str | Path | None = None,
    retry_failed: bool = False,
    keep: Keep = "models",
) -> dict[str, Settings]:
    """Search in each arm that has the searched stage; return the best settings by arm, {} where nothing is searched.

    design: of the arms before any search; `expand(..., searched=)` takes what comes back. workers: closed at the end.
    retry_failed: do trials that failed before once more; what is tried after them may then be other settings. keep:
    "results" removes the weights of trials.

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
            made = [Searched(arm, design, search, alone(design, arm), folder, course.data) for arm in arms]
            source = _Searches(made, told, retry_failed=retry_failed)
            course.drive(source)
        finally:
            workers.close()
        if keep == "results":
            for run in {run for arm in source.arms for run in arm.every}:
                folder.remove_model(run)
    return {arm.name: arm.best() for arm in source.arms}


class _Searches:
    """The searches of all arms, one trial of each at a time: what it gave decides what is tried next."""

    def __init__(self, arms: list[Searched], progress: Progress, *, retry_failed: bool) -> None:
        self._begun: set[str] = set()
        self.arms = [_ArmSearch(arm, progress, self._begun, retry_failed) for arm in arms]
        self.total = sum(arm.search.trials for arm in arms)
        for one in self.arms:
            one.advance()

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
    """The search of one arm.

    begun: runs of all arms that were begun since the search was; what failed before is done once more where that is
    asked for. runs: those of the trial that goes on, the one that is judged last. every: those of all trials.
    """

    made: Searched
    progress: Progress
    begun: set[str]
    retry_failed: bool
    trials: list[Trial] = field(default_factory=list)
    runs: list[PlannedRun] = field(default_factory=list)
    every: set[str] = field(default_factory=set)
    settings: Settings = field(default_factory=dict)
    asked: optuna.trial.Trial | None = None
    study: optuna.Study = field(init=False)

    def __post_init__(self) -> None:
        self.study = _study(self.search)

    @property
    def name(self) -> str:
        """The name of the arm."""
        return self.made.arm

    @property
    def search(self) -> Search:
        """What is searched."""
        return self.made.search

    @property
    def folder(self) -> StudyFolder:
        """Where the runs are."""
        return self.made.folder

    def wanted(self) -> PlannedRun | None:
        """Return the run that the arm waits for; None: its trials are done."""
        return next((run for run in self.runs if self.folder.record(run.id) is None), None)

    def advance(self) -> None:
        """Hear what came of the trial, as long as that is known, and ask for the next one."""
        while len(self.trials) < self.search.trials:
            if self.asked is None:
                self._ask()
            records = [self._record(run.id) for run in self.runs]
            failed = next((record["id"] for record in records if record and record["state"] == "failed"), None)
            if failed is None and None in records:
                self._make_ready()
                return
            self._tell(None if failed else self._value(self.runs[-1].id), failed)

    def best(self) -> Settings:
        """Return the settings with the highest score, the first of equals.

        Raises:
            StudyError: every trial failed.
        """
        best = self._best()
        if best is None:
            run = self.trials[0].failed or self.trials[0].run
            record = self.folder.record(run)
            error = record["error"] if record is not None else None
            told = f" ({error['message']})" if error else ""
            study = self.made.design.study.name
            raise StudyError(
                f"'{study}': every trial of the arm '{self.name}' failed, the first one as '{run}'{told}; mend what it "
                "says, then run the study again with --retry-failed."
            )
        return best.settings

    def _best(self) -> Trial | None:
        return max((trial for trial in self.trials if trial.value is not None), key=_by_value, default=None)

    def _ask(self) -> None:
        self.asked = self.study.ask(_distributions(self.search))
        self.settings = {path: _value(self.search, path, drawn) for path, drawn in self.asked.params.items()}
        self.runs = list(runs_of_trial(self.made, self.settings, self.asked.number))
        self.every |= {run.id for run in self.runs}

    def _record(self, run: str) -> Record | None:
        """Return how a run ended; what failed before this search began is forgotten where it is to be tried again."""
        record = self.folder.record(run)
        if record is not None and record["state"] == "failed" and self.retry_failed and run not in self.begun:
            self.folder.forget(run)
            return None
        return record

    def _make_ready(self) -> None:
        """Let what the trial starts from be done anew where its weights were given up."""
        records = [(run, self.folder.record(run.id)) for run in self.runs]
        done = {run.id for run, record in records if record is not None and record["state"] == "done"}
        for run in list(missing_models(self.runs, self.folder, done)):
            self.progress.say(AGAIN.format(run=run))
            self.folder.discard(run)

    def _tell(self, value: float | None, failed: str | None) -> None:
        assert self.asked is not None, "it was asked before"
        if value is None:
            self.study.tell(self.asked, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(self.asked, value)
        self.trials.append(Trial(self.asked.number, self.settings, self.runs[-1].id, value, failed))
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
            "trials": [trial.facts() for trial in self.trials],
            "best": None if best is None else best.facts(),
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
