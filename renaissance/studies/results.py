"""What the runs of a study gave: scores and ledger figures by arm and seed, read from verified runs alone.

Letters: P pretraining seeds, F runs below each (the seeds of later stages), U units of a score.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from renaissance.api import Outcomes
from renaissance.errors import DataError, StudyError
from renaissance.evaluation.outcomes import read_outcomes
from renaissance.studies.arms import Design
from renaissance.studies.folder import Record, StudyFolder
from renaissance.studies.statistics.arrays import Floats

LEDGER, TRAINED = "ledger", "trained"
COMPARED = {
    "flops_as_run": "as run",
    "flops_no_store": "frozen, no store",
    "flops_store_built": "as run, store built",
    "flops_nothing_frozen": "nothing frozen",
}
# split ('data/split' of further data), task, metric, model
Key = tuple[str, str, str, str]


def counted(metric: str) -> bool:
    """Return whether 'stage/...' is a figure of a ledger, and no score."""
    return metric.count("/") == 2


def _key(inner: str) -> Key:
    """Return where a run keeps the score 'split/task/metric', or 'data/split/task/metric', of its trained model."""
    split, task, name = inner.rsplit("/", 2)
    return split, task, name, TRAINED


@dataclass(frozen=True, slots=True)
class Figure:
    """A score of one run, and what the best constant answer scores, where there is one."""

    value: float
    chance: float | None


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that is done. ledger: by figure, None where the run could not know it; machine: what it ran on."""

    folder: Path
    record: Record
    scores: Mapping[Key, Figure]
    ledger: Mapping[str, float | None]
    machine: Mapping[str, Any]

    def figure(self, metric: str) -> float | None:
        """Return what the run gave of '[data/]split/task/metric', of its trained model, or of 'ledger/figure'."""
        if metric.count("/") == 1:
            return self.ledger.get(metric.removeprefix(f"{LEDGER}/"))
        found = self.scores.get(_key(metric))
        return None if found is None else found.value


@dataclass(frozen=True, slots=True)
class Pairs:
    """What arms share: `scores` [P, F] by arm, of the pretraining `seeds` alone that all of them have whole.

    left_out: for each other seed, a line that says which run is missing, and why. waiting: how many of the arms' runs
    are still to come.
    """

    scores: Mapping[str, Floats]
    seeds: tuple[int, ...]
    left_out: tuple[str, ...]
    waiting: int


@dataclass(frozen=True, slots=True)
class Results:
    """All that is known of the runs of a design, each by its id: those that are done, failed, or have not ended."""

    design: Design
    done: Mapping[str, Finished]
    failed: Mapping[str, Record]
    waiting: tuple[str, ...]

    def rows(self, arm: str, stage: str) -> Sequence[Sequence[str]]:
        """Return the ids of an arm's runs of a stage, [P][F]; none where it has no such stage."""
        return self.design.runs_of.get((arm, stage), ())

    def lost(self, run: str) -> bool:
        """Return whether a run failed, or will never begin, as one that it starts from did."""
        after = self.design.runs[run].after
        return run in self.failed or (after is not None and self.lost(after))

    def fault(self, run: str) -> str:
        """Return the class of the error by which a run failed, and its exit code."""
        error = self.failed[run]["error"]
        return "for an unknown reason" if error is None else f"{error['type']}, exit code {error['exit_code']}"

    def finished(self, arm: str, stage: str) -> list[Finished]:
        """Return those of an arm's runs of a stage that are done, by their seeds."""
        return [self.done[run] for row in self.rows(arm, stage) for run in row if run in self.done]

    def untestable(self, metric: str, arms: Sequence[str]) -> str | None:
        """Return why arms cannot be compared on 'stage/...' at all, or None."""
        stage, _, inner = metric.partition("/")
        known = {arm.name for arm in self.design.arms}
        for arm in arms:
            if arm not in known:
                return f"the preset '{self.design.preset}' leaves out the arm '{arm}'"
            if not self.rows(arm, stage):
                return f"the arm '{arm}' has no stage '{stage}'"
            done = self.finished(arm, stage)
            if done and all(run.figure(inner) is None for run in done):
                return f"no run of the arm '{arm}' measured '{metric}'"
        return None

    def pairs(self, metric: str, arms: Sequence[str]) -> Pairs:
        """Return the scores of arms on 'stage/...' for the seeds that all of them have whole."""
        stage, _, inner = metric.partition("/")
        seeds, left_out = [], []
        for seed in range(min((len(self.rows(arm, stage)) for arm in arms), default=0)):
            why = [line for arm in arms for line in self._missing(arm, self.rows(arm, stage)[seed], inner)]
            if why:
                left_out.append(f"pretraining seed {seed}: {', '.join(why)}")
            else:
                seeds.append(seed)
        scores = {arm: self._array(arm, stage, inner, seeds) for arm in arms}
        runs = {run for arm in arms for row in self.rows(arm, stage) for run in row}
        waiting = sum(run in self.waiting and not self.lost(run) for run in runs)
        return Pairs(scores, tuple(seeds), tuple(left_out), waiting)

    def chance(self, metric: str, arms: Sequence[str], seeds: Sequence[int]) -> Floats | None:
        """Return what chance scores on 'stage/...' by seed [P], the mean over arms; None where no chance is known."""
        if counted(metric):
            return None
        stage, _, inner = metric.partition("/")
        runs = [[self.done[run] for arm in arms for run in self.rows(arm, stage)[seed]] for seed in seeds]
        found = [[run.scores.get(_key(inner)) for run in row] for row in runs]
        known = [[one.chance for one in row if one is not None and one.chance is not None] for row in found]
        return np.array([np.mean(row) for row in known]) if all(known) else None

    def outcomes(self, metric: str, arms: Sequence[str], seeds: Sequence[int]) -> dict[str, Floats] | None:
        """Return [P, F, U] by arm: the score of each unit; None unless all runs kept those of the same units.

        Units weigh differently in some scores, so each value is taken to where the plain mean over units is the score:
        mean + weight / mean weight x (value - mean).
        """
        stage, _, inner = metric.partition("/")
        own = {arm: [[self.done[run] for run in self.rows(arm, stage)[seed]] for seed in seeds] for arm in arms}
        kept: list[list[list[Outcomes]]] = []
        for arm in arms:
            found = [[_outcomes(run, inner) for run in row] for row in own[arm]]
            if any(one is None for row in found for one in row):
                return None
            kept.append([[one for one in row if one is not None] for row in found])
        every = [one for rows in kept for row in rows for one in row]
        if not every or len(every[0].values) < 2 or not all(every[0].pairs_with(one) for one in every):
            return None
        arrays = (np.array([[_levelled(one) for one in row] for row in rows]) for rows in kept)
        return dict(zip(arms, arrays, strict=True))

    def keys(self, arm: str, stage: str) -> list[Key]:
        """Return what an arm's runs of a stage measured, in the order of the first that did."""
        return list(dict.fromkeys(key for run in self.finished(arm, stage) for key in run.scores))

    def whole(self, arm: str, stage: str, key: Key) -> tuple[list[int], list[list[Figure]]]:
        """Return the pretraining seeds of which all of an arm's runs have a score, and these scores [P][F]."""
        rows = {}
        for seed, row in enumerate(self.rows(arm, stage)):
            found = [self.done[run].scores.get(key) if run in self.done else None for run in row]
            if all(one is not None for one in found):
                rows[seed] = [one for one in found if one is not None]
        return list(rows), list(rows.values())

    def _missing(self, arm: str, row: Sequence[str], inner: str) -> Iterator[str]:
        for run in row:
            if run in self.failed:
                yield f"'{run}' of '{arm}' failed ({self.fault(run)})"
            elif run not in self.done:
                yield f"'{run}' of '{arm}' has not run{', as what it starts from failed' if self.lost(run) else ''}"
            elif self.done[run].figure(inner) is None:
                yield f"'{run}' of '{arm}' has no '{inner}'"

    def _array(self, arm: str, stage: str, inner: str, seeds: Sequence[int]) -> Floats:
        rows = [[self.done[run].figure(inner) for run in self.rows(arm, stage)[seed]] for seed in seeds]
        return np.array(rows, dtype=np.float64).reshape(len(seeds), len(self.rows(arm, stage)[0]))


def collect(design: Design, folder: StudyFolder) -> Results:
    """Return what the runs of a design gave, once the digests of all of them are checked.

    Raises:
        StudyError: the results of a run are not those that were recorded.
    """
    records = {run: record for run in design.runs if (record := folder.record(run)) is not None}
    places = {run: folder.verified(run) for run, record in records.items() if record["state"] == "done"}
    return Results(
        design,
        {run: _finished(place, records[run]) for run, place in places.items()},
        {run: record for run, record in records.items() if record["state"] != "done"},
        tuple(run for run in design.runs if run not in records),
    )


def _finished(folder: Path, record: Record) -> Finished:
    scores, ledger = _json(folder / "scores.json"), _json(folder / "ledger.json")
    try:
        return Finished(folder, record, _scores(scores), _ledger(scores, ledger), ledger["machine"])
    except (LookupError, TypeError, AttributeError) as error:
        raise StudyError(
            f"'{folder.name}': scores.json or ledger.json is none of this version ({error}); delete the run and its "
            "record to run it again."
        ) from None


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"'{path.parent.name}/{path.name}' cannot be read ({error}); run it again.") from None
    return found


def _scores(facts: Mapping[str, Any]) -> dict[Key, Figure]:
    """Return the finite scores of scores.json; a split of further data is called 'data/split'."""
    found: dict[Key, Figure] = {}
    for row in facts["scores"]:
        split = "/".join(filter(None, (row.get("data", ""), row["split"])))
        if row["value"] is not None and math.isfinite(row["value"]):
            key = (split, row["task"], row["name"], row["model"])
            found[key] = Figure(float(row["value"]), row["chance"])
    return found


def _ledger(scores: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the figures of a run's ledger by the names that studies call them by."""
    memory, seconds, store = facts["peak_memory_bytes"], scores["seconds"], facts["store"]["seconds"]
    return {
        **{name: facts["compared"][key] for name, key in COMPARED.items()},
        "updates": facts["updates"],
        "samples": facts["samples"],
        "seconds_training": seconds["training"],
        "seconds_evaluation": seconds.get("evaluation", 0.0),
        "seconds_store": store,
        "seconds_store_built": seconds["training"] + store,  # as of FLOPs: each run is charged all that it reads
        "peak_memory_bytes": memory.get("gpu", memory.get("rss")),
    }


def _outcomes(run: Finished, inner: str) -> Outcomes | None:
    try:
        return read_outcomes(run.folder).get(f"{TRAINED}/{inner}")
    except DataError:
        return None


def _levelled(outcomes: Outcomes) -> Floats:
    """Return one value a unit [U] with the score as their plain mean."""
    values, weights = outcomes.values.astype(np.float64), outcomes.weights.astype(np.float64)
    mean = float(np.average(values, weights=weights))
    levelled: Floats = mean + weights / weights.mean() * (values - mean)
    return levelled
