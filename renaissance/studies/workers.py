"""Who does the runs of a study: this process, or several on this machine. `ray_workers` does them on a cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from renaissance.errors import SpecError
from renaissance.studies.folder import Fault
from renaissance.studies.job import Finished, Job

KILLED = 128  # and the signal: what a shell shows


class Workers(Protocol):
    """Does jobs, up to `capacity` at a time, each with so many `threads` unless its study began with another number."""

    capacity: int
    threads: int

    def start(self, job: Job) -> None:
        """Begin a job; fewer than `capacity` are at work."""
        ...

    def wait(self, seconds: float) -> Finished | None:
        """Return a job that has ended; None: none did within so many seconds."""
        ...

    def stop(self) -> None:
        """Ask all that are at work to stop at a checkpoint; `wait` gives them."""
        ...

    def close(self) -> None:
        """End all processes at once, whatever they do; a job that starts later starts new ones."""
        ...


@dataclass(slots=True, eq=False)
class _Worker:
    """A process that does jobs. job: the one that it does, None where it waits for one; begun: when, for the clock."""

    process: subprocess.Popen[str]
    reader: threading.Thread | None = None
    job: Job | None = None
    begun: float = 0.0


class LocalWorkers:
    """Does jobs in processes of this machine, which live on for further jobs: to import the libraries takes seconds.

    They hear no Ctrl-C, and end by themselves when this process does, however it ends. threads: of each; default:
    OMP_NUM_THREADS, or an equal part of the cores.

    Raises:
        SpecError: `jobs` is no number of processes.
    """

    def __init__(self, jobs: int = 1, *, threads: int | None = None) -> None:
        if jobs < 1:
            raise SpecError(f"A study takes at least one worker, and not {jobs}: give --jobs 1 or more.")
        self.capacity = jobs
        self.threads = threads or _threads(jobs)
        self._workers: list[_Worker] = []
        self._told: SimpleQueue[tuple[_Worker, str | None]] = SimpleQueue()

    @property
    def process_ids(self) -> list[int]:
        """The processes that are there now."""
        return [worker.process.pid for worker in self._workers]

    def start(self, job: Job) -> None:
        """Give a job to a worker that waits, or to a new one."""
        worker = next((one for one in self._workers if one.job is None and one.process.poll() is None), None)
        worker = worker or self._new()
        worker.job, worker.begun = job, time.monotonic()
        assert worker.process.stdin is not None, "it was asked for"
        with suppress(BrokenPipeError):  # it was killed just now, which its reader tells
            worker.process.stdin.write(json.dumps(asdict(job)) + "\n")
            worker.process.stdin.flush()

    def wait(self, seconds: float) -> Finished | None:
        """Return a job that has ended; None: none did within so many seconds."""
        try:
            worker, line = self._told.get(timeout=seconds)
        except Empty:
            return None
        job, worker.job = worker.job, None
        if line is not None:
            return Finished(**json.loads(line))
        self._bury(worker)
        return None if job is None else self._died(job, worker)

    def stop(self) -> None:
        """Ask all that are at work to stop at a checkpoint."""
        for worker in self._workers:
            if worker.job is not None:
                worker.process.terminate()

    def close(self) -> None:
        """Kill all workers: what they write is written whole or not at all."""
        for worker in list(self._workers):
            worker.process.kill()
            self._bury(worker)
        self._told = SimpleQueue()

    def _new(self) -> _Worker:
        process = subprocess.Popen(
            [sys.executable, "-m", "renaissance.studies.job"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": str(self.threads)},
            start_new_session=True,  # a terminal sends Ctrl-C to all of its own session
        )
        worker = _Worker(process)
        worker.reader = threading.Thread(target=_read, args=(worker, self._told), daemon=True)
        worker.reader.start()
        self._workers.append(worker)
        return worker

    def _bury(self, worker: _Worker) -> None:
        """Wait for the end of a process, and let go of its pipes."""
        worker.process.wait()
        assert worker.reader is not None, "every worker has one"
        worker.reader.join()
        for pipe in (worker.process.stdin, worker.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # a job that it never read
                    pipe.close()
        self._workers.remove(worker)

    def _died(self, job: Job, worker: _Worker) -> Finished:
        """Return what is told of a job whose process is no more."""
        seconds, code = round(time.monotonic() - worker.begun, 3), worker.process.returncode
        if code == -signal.SIGTERM:  # before its run listened; nothing is lost
            return Finished(job.id, seconds, stopped=True)
        if code < 0:
            message = f"killed by signal {-code}{_WHY.get(-code, '')}"
            fault = Fault(type="Killed", message=message, exit_code=KILLED - code)
        else:
            fault = Fault(type="Ended", message=f"its process ended with exit code {code}", exit_code=code)
        return Finished(job.id, seconds, fault)


_WHY = {9: ": memory may have run out"}


def _read(worker: _Worker, told: SimpleQueue[tuple[_Worker, str | None]]) -> None:
    """Pass on each whole line that a worker answers, then None."""
    assert worker.process.stdout is not None, "it was asked for"
    for line in worker.process.stdout:
        if line.endswith("\n"):
            told.put((worker, line))
    told.put((worker, None))


def _threads(jobs: int) -> int:
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told):
        return int(told)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)
