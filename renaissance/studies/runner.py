"""The runs of a study: each is done once, by whichever worker is free, and the study may stop and go on at any time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from renaissance.progress import Progress, Silent, closing
from renaissance.studies.arms import Design, PlannedRun, worlds_of
from renaissance.studies.course import Course
from renaissance.studies.folder import Record, StudyFolder
from renaissance.studies.keeping import AGAIN, Keep, give_up_models, missing_models
from renaissance.studies.placing import check_data
from renaissance.studies.workers import Workers
from renaissance.studies.worlds import made


@dataclass(frozen=True, slots=True)
class Outcome:
    """Ids of the runs of a study: done, failed, and waiting, as a run that they start from failed."""

    done: tuple[str, ...]
    failed: tuple[str, ...]
    waiting: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every run is done."""
        return not self.failed and not self.waiting


def run_study(
    design: Design,
    folder: StudyFolder,
    *,
    workers: Workers,
    progress: Progress | None = None,
    data: str | Path | None = None,
    retry_failed: bool = False,
    keep: Keep = "models",
    shown: Collection[str] = (),
) -> Outcome:
    """Do the runs of a design that are not done yet; a run that fails stops no other.

    workers: closed at the end. data: the folder of images for stages that name none. retry_failed: go on with runs
    that failed before. keep: with "results", the weights of a run go as soon as no other starts from them, but for
    those in `shown`; where such are needed again, by a further arm or seed, the run is done again.

    Raises:
        StudyError: the folder is that of another study, results in it were changed, or a stage has no data.
        OutputError: another process writes the folder.
        StoppedError: Ctrl-C or SIGTERM stopped the study; the message has the command that continues it.
    """
    source = _Planned(design, folder, retry_failed, _Models(keep, shown))
    told = progress or Silent()
    with closing(told), folder.writing():
        source.prepare()
        try:
            opened_course(design, folder, workers, told, data, again=source.again).drive(source)
        finally:
            workers.close()
    return source.outcome(told)


def opened_course(
    design: Design,
    folder: StudyFolder,
    workers: Workers,
    progress: Progress,
    data: str | Path | None,
    *,
    again: Collection[str] = (),
) -> Course:
    """Make ready a folder that is locked for the runs of a design, and for others that read the same data.

    again: runs that are done, and are to be done anew, as their weights are gone.

    Raises:
        StudyError: the folder is that of another study, or a stage has no data.
    """
    given = str(Path(data).expanduser().resolve()) if data is not None else None
    threads, known = folder.keep_design(design, threads=workers.threads, data=given)
    check_data(design, known, given)
    for lost in again:
        progress.say(AGAIN.format(run=lost))
        folder.discard(lost)
    course = Course(folder, workers, progress, threads, known)
    needed: set[str] = set()
    for run in design.runs.values():
        record = folder.record(run.id)
        course.note_time(run, record)
        if record is None:
            needed |= {f"{world}/{layout}" for _, world, layout in worlds_of(run.recipe)}
    made(design.study, folder, needed, progress)
    return course


@dataclass(frozen=True, slots=True)
class _Models:
    """Whether weights are kept that no run needs. shown: the runs whose weights stay all the same."""

    keep: Keep
    shown: Collection[str]


class _Planned:
    """The runs of a design, in its order; those that start from another come after it.

    again: those that are done anew, as their weights are gone.
    """

    def __init__(self, design: Design, folder: StudyFolder, retry_failed: bool, models: _Models) -> None:
        self.total = len(design.runs)
        self.again: tuple[str, ...] = ()
        self._design, self._folder, self._retry, self._models = design, folder, retry_failed, models
        self._records: dict[str, Record] = {}
        self._begun: set[str] = set()

    def prepare(self) -> None:
        """Look at the runs that have ended, before another one begins.

        Raises:
            StudyError: the results of one were changed.
        """
        for run in self._design.runs:
            record = self._folder.record(run)
            if record is not None and record["state"] == "done":
                self._folder.verified(run)
            elif record is not None and self._retry:
                self._folder.forget(run)
                continue
            if record is not None:
                self._records[run] = record
        left = [run for run in self._design.runs.values() if run.id not in self._failed()]
        self.again = tuple(missing_models(left, self._folder, self._done()))
        for run in self.again:
            del self._records[run]
        self._give_up()

    def next(self) -> PlannedRun | None:
        """Return the first run that can begin."""
        for run in self._design.runs.values():
            if run.id not in self._records and run.id not in self._begun and self._ready(run):
                self._begun.add(run.id)
                return run
        return None

    def ended(self, run: PlannedRun, record: Record) -> None:
        """Note how a run ended."""
        self._records[run.id] = record
        self._give_up()

    def counts(self) -> tuple[int, Counter[str]]:
        """Return how many runs have ended, and how many of each stage can still be done."""
        left = [run for run in self._design.runs.values() if run.id not in self._records and not self._blocked(run)]
        return len(self._records), Counter(run.stage for run in left)

    def arms_of(self, run: str) -> list[str]:
        """Return the arms that share a run."""
        return self._design.arms_of(run)

    def outcome(self, progress: Progress) -> Outcome:
        """Return what became of the runs, and say which ones wait for one that failed."""
        ended = [self._records[run] for run in self._design.runs if run in self._records]
        states = {
            state: tuple(record["id"] for record in ended if record["state"] == state) for state in ("done", "failed")
        }
        waiting = tuple(run for run in self._design.runs if run not in self._records)
        for failed in states["failed"]:
            behind = [run for run in waiting if failed in self._before(self._design.runs[run])]
            if behind:
                progress.say(f"Waiting for '{failed}', which failed: {', '.join(behind)}")
        return Outcome(states["done"], states["failed"], waiting)

    def _done(self) -> set[str]:
        return {run for run, record in self._records.items() if record["state"] == "done"}

    def _failed(self) -> set[str]:
        return self._records.keys() - self._done()

    def _give_up(self) -> None:
        if self._models.keep == "results":
            give_up_models(self._design, self._folder, self._done(), but=self._models.shown)

    def _ready(self, run: PlannedRun) -> bool:
        if run.after is None:
            return True
        before = self._records.get(run.after)
        return before is not None and before["state"] == "done"

    def _blocked(self, run: PlannedRun) -> bool:
        return any(self._records[one]["state"] == "failed" for one in self._before(run) if one in self._records)

    def _before(self, run: PlannedRun) -> Iterator[str]:
        """Yield the runs that a run needs, the nearest first."""
        while run.after is not None:
            yield run.after
            run = self._design.runs[run.after]
