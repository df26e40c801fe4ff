"""How runs go through workers: begun, waited for, stopped, recorded, and shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from renaissance.errors import StoppedError
from renaissance.progress import Progress
from renaissance.studies.arms import PlannedRun
from renaissance.studies.folder import Record, StudyFolder
from renaissance.studies.job import Finished, Job
from renaissance.studies.placing import lend_models, placed
from renaissance.studies.workers import Workers
from renaissance.training.signals import listening

POLL_S = 0.5  # a signal is heard within this time


class Source(Protocol):
    """Says which run comes next, and hears how each ended."""

    total: int

    def next(self) -> PlannedRun | None:
        """Return a run that can begin now and is not at work; None: there is none at the moment."""
        ...

    def ended(self, run: PlannedRun, record: Record) -> None:
        """Hear that a run ended."""
        ...

    def counts(self) -> tuple[int, Counter[str]]:
        """Return how many runs have ended, and how many by stage are still to be done, those at work included."""
        ...

    def arms_of(self, run: str) -> list[str]:
        """Return the arms that a run is for."""
        ...


@dataclass(slots=True)
class Course:
    """Takes the runs of a source to the workers, and notes how each ended. seconds: of runs that are done, by stage."""

    folder: StudyFolder
    workers: Workers
    progress: Progress
    threads: int
    data: str | None
    at_work: dict[str, PlannedRun] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    stopping: bool = False

    def drive(self, source: Source) -> None:
        """Do runs until the source has no more.

        Raises:
            StoppedError: a signal was heard; what was at work has written its checkpoint.
        """
        show = self.progress.bar("Runs")
        with listening() as signals, signals.held():
            while True:
                if signals.caught is not None:
                    self._stop()
                if not self.stopping:
                    self._fill(source)
                show(source.counts()[0], source.total)
                self.progress.note(f"{', '.join(self.at_work)}{self._left(source)}")
                if not self.at_work:
                    break
                finished = self.workers.wait(POLL_S)
                if finished is not None:
                    self._end(source, finished)
            if self.stopping:
                raise StoppedError(self._stopped(source))

    def close(self, run: PlannedRun) -> Record:
        """Record that a run is done."""
        record = self.folder.record_done(run.id)
        self.note_time(run, record)
        return record

    def note_time(self, run: PlannedRun, record: Record | None) -> None:
        """Note how long a run took that is done; what is left is expected to take as long."""
        if record is not None and record["state"] == "done":
            self.seconds.setdefault(run.stage, []).append(record["seconds"])

    def _fill(self, source: Source) -> None:
        while len(self.at_work) < self.workers.capacity and (run := source.next()) is not None:
            if self.folder.is_whole(run.id):  # killed between its end and its record
                source.ended(run, self.close(run))
                continue
            lend_models(run.recipe, self.folder)
            recipe = placed(run.recipe, self.data)
            self.at_work[run.id] = run
            self.workers.start(Job(run.id, str(self.folder.path.resolve()), recipe, self.threads))

    def _end(self, source: Source, finished: Finished) -> None:
        run = self.at_work.pop(finished.id)
        if finished.stopped:
            self._stop()  # where somebody stopped one worker alone, what they meant is the study
            return
        if finished.fault is None:
            record = self.close(run)
        else:
            record = self.folder.record_failed(run.id, finished.seconds, finished.fault)
        source.ended(run, record)
        self.progress.say(self._line(source, run, record))

    def _stop(self) -> None:
        """Let the workers stop, and begin no other run."""
        if self.stopping:
            return
        self.stopping = True
        self.workers.stop()
        if self.at_work:
            runs = ", ".join(self.at_work)
            self.progress.say(f"Stopping: {runs} will stop at a checkpoint; Ctrl-C again ends at once.")

    # --- what is shown ----------------------------------------------------------------------------------------------

    def _line(self, source: Source, run: PlannedRun, record: Record) -> str:
        ended, _ = source.counts()
        who = f"{ended}/{source.total} {run.id} ({', '.join(source.arms_of(run.id))})"
        time, error = _duration(record["seconds"]), record["error"]
        if error is not None:
            return f"{who} FAILED after {time}: {error['type']}: {error['message']} (log: {self.folder.log(run.id)})"
        return f"{who} done in {time}{self._left(source)}"

    def _left(self, source: Source) -> str:
        """Return how long the rest takes, by the mean of the runs of each stage, and of all where a stage has none."""
        everything = [value for values in self.seconds.values() for value in values]
        _, left = source.counts()
        if not everything or not left.total():
            return ""
        seconds = sum(count * _mean(self.seconds.get(stage) or everything) for stage, count in left.items())
        return f"; about {_duration(seconds / min(self.workers.capacity, left.total()))} left"

    def _stopped(self, source: Source) -> str:
        ended, design = source.counts()[0], self.folder.designed()
        study = self.folder.study if self.folder.study.is_file() else design["study"]
        return (
            f"The study was stopped; {ended} of {source.total} runs have ended, and the others go on from where they "
            f"are. Continue with: renaissance study run {study} --preset {design['preset']} --out {self.folder.path}"
        )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _duration(seconds: float) -> str:
    """Return a time in words: '42 s', '12 min', '3.4 h'."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
