"""What a worker does: one run after another, each in the folder of its study. `python -m renaissance.studies.job`."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from renaissance.errors import RenaissanceError, StoppedError, StudyError
from renaissance.progress import Progress, Silent
from renaissance.studies.folder import Fault, StudyFolder

ENDED_BY_SIGTERM = 143  # what `renaissance.run` leaves with outside of a training


@dataclass(frozen=True, slots=True)
class Job:
    """A run to do. folder: the study's, absolute; the recipe names places below it relative to it."""

    id: str
    folder: str
    recipe: Mapping[str, Any]
    threads: int

    @property
    def log(self) -> Path:
        """The file of what it prints."""
        return StudyFolder(self.folder).log(self.id)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a job ended: done, with a fault, or stopped, which a later job of the same run goes on from."""

    id: str
    seconds: float
    fault: Fault | None = None
    stopped: bool = False


def work(job: Job, progress: Progress | None = None) -> Finished:
    """Do a run, or the rest of it; whatever happens in it is told by what comes back."""
    begun = time.monotonic()
    fault, stopped = None, False
    try:
        _run(job, progress or Silent())
    except (StoppedError, KeyboardInterrupt):
        stopped = True
    except SystemExit as leaving:
        stopped = leaving.code == ENDED_BY_SIGTERM
        fault = None if stopped else Fault(type="SystemExit", message=f"it left with {leaving.code}", exit_code=1)
    except RenaissanceError as error:
        fault = Fault(type=type(error).__name__, message=str(error), exit_code=error.exit_code)
    except Exception as error:
        traceback.print_exc()
        fault = Fault(type=type(error).__name__, message=str(error) or "(no message)", exit_code=1)
    return Finished(job.id, round(time.monotonic() - begun, 3), fault, stopped)


def _run(job: Job, progress: Progress) -> None:
    import torch

    import renaissance
    from renaissance.training.folder import is_run

    if not StudyFolder(job.folder).design.is_file():
        raise StudyError(
            f"There is no study in '{job.folder}' on this machine; choose an --out that all machines share."
        )
    cache = os.environ.get("RENAISSANCE_CACHE")
    if cache:
        os.environ["RENAISSANCE_CACHE"] = str(Path(cache).absolute())
    before = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    forget_memory()
    try:
        with chdir(job.folder):
            out = StudyFolder(".").run(job.id)
            if not StudyFolder(".").is_whole(job.id):
                renaissance.run(dict(job.recipe), out=out, resume=is_run(out), progress=progress)
    finally:
        torch.set_num_threads(before)


def forget_memory() -> None:
    """Give back what runs before have left, so that the peak memory of a run is its own, where the system can do so."""
    gc.collect()  # models hold themselves in cycles
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew, from what is held now


class Lines(Silent):
    """Prints what is said, for the log."""

    def say(self, line: str) -> None:
        """Print one line."""
        print(line, flush=True)


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Append to a file what this process prints while what is inside runs, libraries in C included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        _flush()
        saved = [(number, os.dup(number)) for number in (1, 2)]
        try:
            for number, _ in saved:
                os.dup2(file.fileno(), number)
            yield
        finally:
            _flush()
            for number, copy in saved:
                os.dup2(copy, number)
                os.close(copy)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


# --- the process of a local worker ------------------------------------------------------------------------------------


def main() -> None:
    """Do the jobs that come in, a line of JSON each, and answer each with a line; end at once when none can come."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # what libraries print is no answer
        jobs: SimpleQueue[Job] = SimpleQueue()
        threading.Thread(target=_take_in, args=(jobs,), daemon=True).start()
        while True:
            job = jobs.get()
            with logged(job.log):
                finished = work(job, Lines())
            answers.write(json.dumps(asdict(finished)) + "\n")
            answers.flush()


def _take_in(jobs: SimpleQueue[Job]) -> None:
    for line in sys.stdin:
        jobs.put(Job(**json.loads(line)))
    # whoever gave the jobs has ended, killed perhaps: nobody waits for this one, and its checkpoints are on the disk
    os._exit(0)


if __name__ == "__main__":
    main()
