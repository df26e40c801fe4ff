"""Workers that are no other processes, for tests of what is not about processes."""

from __future__ import annotations

from renaissance.studies.job import Finished, Job, work
from renaissance.studies.workers import LocalWorkers


class OwnProcess:
    """Does one job at a time in this process, while `wait` is called."""

    capacity = 1

    def __init__(self) -> None:
        self.threads = LocalWorkers().threads
        self._jobs: list[Job] = []

    def start(self, job: Job) -> None:
        self._jobs.append(job)

    def wait(self, seconds: float) -> Finished | None:
        return work(self._jobs.pop()) if self._jobs else None

    def stop(self) -> None:
        """Do nothing: a signal reaches the run itself."""

    def close(self) -> None:
        self._jobs.clear()
