"""What is kept of runs that are done: all of them, or only their results, once nothing needs their weights any more.

Weights that were given up and are needed again, by a further arm or seed that starts from them, are made again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Literal

from renaissance.studies.arms import Design, PlannedRun
from renaissance.studies.folder import StudyFolder

Keep = Literal["models", "results"]
AGAIN = "'{run}' is run again: its weights were given up, and runs that are to come start from them"


def give_up_models(design: Design, folder: StudyFolder, done: Collection[str], *, but: Collection[str] = ()) -> None:
    """Remove the weights of those runs that are done from which no run that is not done starts. but: these stay."""
    needed = {run.after for run in design.runs.values() if run.id not in done}
    for run in done:
        if run not in needed and run not in but:
            folder.remove_model(run)


def missing_models(runs: Iterable[PlannedRun], folder: StudyFolder, done: Collection[str]) -> Iterator[str]:
    """Yield the runs that are done, whose weights are gone, and from which runs that are to be done start.

    runs: those that are to be done and those that these start from, each after the one that it starts from.
    """
    again: set[str] = set()
    for run in reversed(list(runs)):
        before = run.after
        if before is None or before in again or before not in done or folder.model(before).is_dir():
            continue
        if run.id not in done or run.id in again:
            again.add(before)
            yield before
