"""The folder of a study: where its runs, records, data and results are, and whether they are still what they were.

study.yaml, design.json    the study as given; its preset, runs by arm and stage, threads and data, and a digest of what
                           its primary verdict is about, as it was before a run that measures that had ended
worlds/<name>/             generated data; prepared/<layout> below it is what runs read
runs/<id>/, logs/<id>.log  run folders, and what each run printed
records/<id>.json          written last, when a run ended: its state, and digests of what it measured
search/<arm>.json          the trials of an arm's search
cases/<arm>/               what one model of an arm retrieved; explanations/<arm>/: what explains it
beginnings/<arm>/          what became of its layers since it began
features/                  the store of frozen features that all runs share
results.json, report.*     made of all this
.lock                      held by the process that writes the folder
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import renaissance
from renaissance.durable import sha256_of, write_atomically
from renaissance.errors import OutputError, StudyError
from renaissance.spec import shown
from renaissance.studies.arms import Design
from renaissance.studies.stated import primary_of, stated
from renaissance.training.folder import state
from renaissance.training.lock import locked

FORMAT = 1
SCORES = "scores.json"
# of a run, what its results are read from; those that a run does not write are left out
KEPT = (SCORES, "ledger.json", "outcomes.safetensors", "metrics.jsonl", "recipe.yaml")
# the optimiser's state of a run that is done: nothing reads it again, and it is most of the run's bytes
DROPPED = ("checkpoints", "blind/checkpoints")
REMOVED = ".model-removed"  # weights that are being removed; those of `model` are whole
DISCARDED = ".discarded-"  # before the name of a run that is being removed
STOPS = ".stop-"  # of the files by which runs on other machines are stopped


class Fault(TypedDict):
    """Why a run failed: the class of its error, what it says, and the exit code that it has on the command line."""

    type: str
    message: str
    exit_code: int


class Record(TypedDict):
    """How a run ended. seconds: of all of its phases where it is done; sha256: by the name of a file in its folder."""

    format: int
    id: str
    state: Literal["done", "failed"]
    sha256: dict[str, str]
    seconds: float
    error: Fault | None


class StudyFolder:
    """The places in a study's folder, and the records of its runs."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.study, self.design = self.path / "study.yaml", self.path / "design.json"
        self.results, self.features = self.path / "results.json", self.path / "features"

    def run(self, run: str) -> Path:
        """Return the folder of a run."""
        return self.path / "runs" / run

    def model(self, run: str) -> Path:
        """Return the folder of a run's weights, which may have been given up."""
        return self.run(run) / "model"

    def log(self, run: str) -> Path:
        """Return the file of what a run prints."""
        return self.path / "logs" / f"{run}.log"

    def record_file(self, run: str) -> Path:
        """Return the file of a run's record."""
        return self.path / "records" / f"{run}.json"

    def cases(self, arm: str) -> Path:
        """Return the file of what one model of an arm retrieved; its pictures are beside it."""
        return self.path / "cases" / arm / "cases.json"

    def explanation(self, arm: str) -> Path:
        """Return the folder of what explains one model of an arm."""
        return self.path / "explanations" / arm

    def beginning(self, arm: str) -> Path:
        """Return the folder of what became of the layers of one model of an arm since it began."""
        return self.path / "beginnings" / arm

    def search(self, arm: str) -> Path:
        """Return the file of an arm's search."""
        return self.path / "search" / f"{arm}.json"

    def world(self, name: str) -> Path:
        """Return the folder of a generated world."""
        return self.path / "worlds" / name

    def prepared(self, name: str, layout: str) -> Path:
        """Return the folder of a world's prepared layout."""
        return self.world(name) / "prepared" / layout

    # --- the study --------------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep every other process from writing the folder, which is made, while what is inside runs.

        Raises:
            OutputError: another process does, or the folder cannot be made.
        """
        try:
            for name in ("runs", "logs", "records", "search"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"'{shown(self.path)}' cannot be made ({error.strerror}); choose another --out."
            ) from None
        with locked(self.path):
            for leftover in [*(self.path / "runs").glob(f"{DISCARDED}*"), *self.path.glob(f"{STOPS}*")]:
                shutil.rmtree(leftover, ignore_errors=True)
            yield

    def keep_study(self, design: Design, raw: bytes) -> None:
        """Keep a study as it was given; one that was changed since goes on with the runs that are the same.

        Raises:
            StudyError: the folder is that of another study or preset; what is in it stays.
        """
        self._own(design)
        if not self.study.is_file() or self.study.read_bytes() != raw:
            write_atomically(self.study, raw)

    def _own(self, design: Design) -> dict[str, Any]:
        """Return what design.json holds, {} where there is none yet, if the folder is that of this design."""
        noted = self.designed()
        if noted and (noted.get("study"), noted.get("preset")) != (design.study.name, design.preset):
            raise StudyError(
                f"'{self.path}' holds the study '{noted.get('study')}' at preset '{noted.get('preset')}'; choose "
                "another --out."
            )
        return noted

    def keep_design(self, design: Design, *, threads: int, data: str | None) -> tuple[int, str | None]:
        """Note what is run here; return the threads of each run and the folder of data, as they were noted first.

        Other threads would give other sums, and so other weights in the last digits.

        Raises:
            StudyError: the folder is that of another study, preset or data.
        """
        noted = self._own(design)
        if noted.get("data") and data and noted["data"] != data:
            raise StudyError(
                f"The runs in '{self.path}' read '{noted['data']}'; give that as --data, or another --out."
            )
        threads, data = int(noted.get("threads", threads)), data or noted.get("data")
        measured = noted.get("measured", False) or self._measured(design, noted)
        runs: dict[str, dict[str, Any]] = {}
        for (arm, stage), ids in design.runs_of.items():
            runs.setdefault(arm, {})[stage] = [list(row) for row in ids]
        facts = {
            "format": FORMAT,
            "study": design.study.name,
            "preset": design.preset,
            "version": renaissance.__version__,
            "threads": threads,
            "data": data,
            "stated": noted["stated"] if measured and "stated" in noted else stated(design),
            "measured": measured,
            "runs": runs,
            "searched": {arm: dict(settings) for arm, settings in design.searched.items()},
        }
        write_atomically(self.design, json.dumps(facts, indent=1) + "\n")
        return threads, data

    def _measured(self, design: Design, noted: Mapping[str, Any]) -> bool:
        """Return whether a run has ended that measures the primary hypothesis, as it is or as it was noted."""
        primary = primary_of(design)
        stage = primary.metric.partition("/")[0]
        rows = [row for arm in primary.arms for row in design.runs_of.get((arm, stage), ())]
        rows += [row for arm in primary.arms for row in noted.get("runs", {}).get(arm, {}).get(stage, [])]
        records = (self.record(run) for run in {run for row in rows for run in row})
        return any(record is not None and record["state"] == "done" for record in records)

    def restated(self, design: Design) -> bool:
        """Return whether what the primary verdict is about was changed after a run that measures it had ended."""
        return self.designed().get("stated") not in (None, stated(design))

    def designed(self) -> dict[str, Any]:
        """Return what design.json holds; {} where there is none yet.

        Raises:
            StudyError: it cannot be read.
        """
        return _json(self.design) or {}

    # --- the records ------------------------------------------------------------------------------------------------

    def record(self, run: str) -> Record | None:
        """Return how a run ended; None: it did not, or was never begun.

        Raises:
            StudyError: its record cannot be read.
        """
        told = _json(self.record_file(run))
        if told is not None and set(told) != set(Record.__annotations__):
            raise _damaged(self.record_file(run))
        return cast(Record | None, told)

    def record_done(self, run: str) -> Record:
        """Record that a run is done, with digests of what it measured; its checkpoints are removed."""
        place = self.run(run)
        for name in DROPPED:
            shutil.rmtree(place / name, ignore_errors=True)
        seconds = sum(json.loads((place / SCORES).read_text(encoding="utf-8"))["seconds"].values())
        digests = {name: sha256_of(place / name) for name in KEPT if (place / name).is_file()}
        return self._recorded(run, "done", digests, seconds, None)

    def record_failed(self, run: str, seconds: float, error: Fault) -> Record:
        """Record that a run failed; its folder stays."""
        return self._recorded(run, "failed", {}, seconds, error)

    def _recorded(
        self, run: str, state: Literal["done", "failed"], sha256: dict[str, str], seconds: float, error: Fault | None
    ) -> Record:
        record = Record(format=FORMAT, id=run, state=state, sha256=sha256, seconds=round(seconds, 3), error=error)
        write_atomically(self.record_file(run), json.dumps(record, indent=1) + "\n")
        return record

    def forget(self, run: str) -> None:
        """Remove the record of a run, so that it goes on."""
        self.record_file(run).unlink(missing_ok=True)

    def remove_model(self, run: str) -> None:
        """Remove the weights of a run, and nothing that it measured; what a kill leaves goes with the next call."""
        leftover = self.run(run) / REMOVED
        shutil.rmtree(leftover, ignore_errors=True)
        with suppress(FileNotFoundError):
            self.model(run).rename(leftover)
        shutil.rmtree(leftover, ignore_errors=True)

    def discard(self, run: str) -> None:
        """Remove a run with its record, so that it is done anew; what a kill leaves goes with the next lock."""
        self.forget(run)
        leftover = self.run(f"{DISCARDED}{run}")
        with suppress(FileNotFoundError):
            self.run(run).rename(leftover)
        shutil.rmtree(leftover, ignore_errors=True)

    def is_whole(self, run: str) -> bool:
        """Return whether a run is through, recorded or not."""
        return (self.run(run) / SCORES).is_file() and state(self.run(run)) == "done"

    def verified(self, run: str) -> Path:
        """Return the folder of a run that is done, after a look at its files: they are what they were when it ended.

        Raises:
            StudyError: it is not done, or a file was changed since.
        """
        record = self.record(run)
        if record is None or record["state"] != "done":
            raise StudyError(f"The run '{run}' in '{self.path}' is not done; run the study to its end.")
        for name, digest in record["sha256"].items():
            path = self.run(run) / name
            if not path.is_file() or sha256_of(path) != digest:
                fault = "changed since they were made" if path.is_file() else "lost"
                raise StudyError(
                    f"Results of the run '{run}' were {fault} ({name}): restore it, or delete "
                    f"{self.run(run)} and {self.record_file(run)} to run it again."
                )
        return self.run(run)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise _damaged(path) from None
    if not isinstance(told, dict):
        raise _damaged(path)
    return told


def _damaged(path: Path) -> StudyError:
    return StudyError(f"'{path}' is damaged: restore it, or delete it, and run the study again.")
