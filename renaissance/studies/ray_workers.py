"""The runs of a study on a cluster, by Ray: all machines see the study's folder at the same place."""

from __future__ import annotations

import os
import secrets
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from renaissance.errors import MissingPackageError, SpecError, StudyError
from renaissance.studies.folder import Fault
from renaissance.studies.job import Finished, Job, Lines, logged, work
from renaissance.studies.stopping import StopFiles, obeying

# read when Ray starts: it would tell a server about us, and let everything else on the machine go before our runs
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")

try:
    import ray
    from ray.exceptions import GetTimeoutError, RayError, TaskCancelledError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ModuleNotFoundError as error:
    raise MissingPackageError(
        f'Runs on a cluster need the package {error.name}. Try: pip install "renaissance-vl[ray]"'
    ) from None

ANSWER_S = 300.0  # of a machine that starts a process and imports what it needs


class RayWorkers:
    """Does jobs as tasks of Ray, `jobs` at a time, or as many as the cluster holds.

    address: of a running cluster, "auto" for the one of this machine; None: as RAY_ADDRESS says, or a cluster of this
    machine alone, which ends with this process. cpus, gpus: of each run.

    Raises:
        SpecError: the cluster cannot be reached, or holds no run of that size.
    """

    def __init__(
        self, jobs: int | None = None, *, address: str | None = None, cpus: int = 1, gpus: float = 0.0
    ) -> None:
        if not ray.is_initialized():
            try:
                ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise SpecError(f"Ray cannot be reached at '{address}' ({error}); start it, or give another.") from None
        total = ray.cluster_resources()
        held = [total.get("CPU", 0.0) / cpus] + ([total.get("GPU", 0.0) / gpus] if gpus else [])
        if min(held) < 1:
            raise SpecError(
                f"A run of {cpus} CPUs and {gpus:g} GPUs does not fit this cluster, which has {total.get('CPU', 0):g} "
                f"and {total.get('GPU', 0):g}; ask for less."
            )
        self.capacity, self.threads = min(int(min(held)), jobs or sys.maxsize), cpus
        self._needs = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0}
        self._at_work: dict[Any, tuple[Job, float]] = {}
        self._checked: set[str] = set()
        self._stops: dict[str, StopFiles] = {}

    def start(self, job: Job) -> None:
        """Hand a job to the cluster.

        Raises:
            StudyError: a machine does not see the study's folder.
        """
        self._check_shared(Path(job.folder))
        if job.folder not in self._stops:
            self._stops[job.folder] = StopFiles.made_in(job.folder)
        task = ray.remote(**self._needs)(_work)
        place = str(self._stops[job.folder].place)
        self._at_work[task.remote(asdict(job), place)] = job, time.monotonic()

    def wait(self, seconds: float) -> Finished | None:
        """Return a job that has ended; None: none did within so many seconds."""
        if not self._at_work:
            time.sleep(seconds)
            return None
        ended, _ = ray.wait(list(self._at_work), timeout=seconds)
        if not ended:
            return None
        job, begun = self._at_work.pop(ended[0])
        took = round(time.monotonic() - begun, 3)
        try:
            return Finished(**ray.get(ended[0]))
        except TaskCancelledError:
            return Finished(job.id, took, stopped=True)
        except RayError as error:  # its process, or its machine, is no more
            told = str(error).strip().splitlines()[0]
            return Finished(job.id, took, Fault(type=type(error).__name__, message=told, exit_code=1))

    def stop(self) -> None:
        """Ask all that are at work to stop at a checkpoint; what the cluster has no room for yet never begins."""
        for files in self._stops.values():
            files.ask()
        for task, (job, _) in self._at_work.items():
            if not self._stops[job.folder].begun(job.id):
                ray.cancel(task, force=False)

    def close(self) -> None:
        """Kill the processes of all jobs; the cluster stays as it is."""
        for task in self._at_work:
            ray.cancel(task, force=True)
        self._at_work.clear()
        for files in self._stops.values():
            files.remove()
        self._stops.clear()

    def _check_shared(self, folder: Path) -> None:
        """Check that each machine sees a file that this one has written."""
        nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}
        marker = folder / f".seen-{secrets.token_hex(4)}"
        asked = {}
        try:
            marker.touch()
            for node in nodes.keys() - self._checked:
                where = NodeAffinitySchedulingStrategy(node, soft=False)
                asked[node] = ray.remote(num_cpus=0, scheduling_strategy=where)(_sees).remote(str(marker))
            for node, answer in asked.items():
                if not ray.get(answer, timeout=ANSWER_S):
                    raise StudyError(
                        f"The machine '{nodes[node]}' of the cluster does not see '{folder}', where runs write: choose "
                        "an --out on a file system that all machines share, at the same place."
                    )
                self._checked.add(node)
        except GetTimeoutError:
            raise StudyError(f"A machine of the cluster did not answer within {ANSWER_S:.0f} s; look at it.") from None
        finally:
            marker.unlink(missing_ok=True)


def _sees(path: str) -> bool:
    return os.path.exists(path)


def _work(job: dict[str, Any], stops: str) -> dict[str, Any]:
    """Do a job in a process of the cluster, unless it is to stop before it begins. stops: the place of stop files."""
    given, files = Job(**job), StopFiles(stops)
    if not os.path.isdir(given.folder):
        return asdict(work(given))  # which tells why not
    if not files.begin(given.id):
        return asdict(Finished(given.id, 0.0, stopped=True))
    with logged(given.log), obeying(files):
        return asdict(work(given, Lines()))
