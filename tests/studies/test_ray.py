"""A study on a local instance of Ray gives what it gives in one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from renaissance.errors import SpecError, StoppedError, StudyError
from renaissance.studies.folder import StudyFolder
from renaissance.studies.job import Job
from renaissance.studies.runner import run_study
from tests.studies.own_process import OwnProcess

Studies = Callable[..., Any]
OWN = "/proc/self/cwd"  # another folder in each process


def endless(study: dict[str, Any]) -> None:
    """Two pretrainings that no test waits for, each with a checkpoint after two updates."""
    study["stages"]["pretrain"] |= {"budget": {"steps": 10**6}, "keep_checkpoints": 1000}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two CPUs of this machine, as a cluster that ignores Ctrl-C: a shell starts what is in the background so."""
    import renaissance.studies.ray_workers  # noqa: F401  # what it sets is read when Ray starts

    import ray  # isort: skip

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    finally:
        signal.signal(signal.SIGINT, before)
    yield
    ray.shutdown()


def test_a_study_on_ray_gives_what_one_process_gives_and_refuses_what_it_cannot_do(
    cluster: None, tiny_study: Studies, telling: Any, results: Any, tmp_path: Path
) -> None:
    from renaissance.studies.ray_workers import RayWorkers

    def small(study: dict[str, Any]) -> None:
        study["seeds"] = {"pretrain": 1, "finetune": 1}
        study["factors"]["rate"]["levels"]["high"] = {"finetune.data": {"kind": "prepared", "path": "/nowhere"}}
        study["factors"]["rate"]["varies"] = ["finetune.data"]

    study, folder, whole = tiny_study(small), StudyFolder(tmp_path / "study"), StudyFolder(tmp_path / "whole")
    assert RayWorkers(1).capacity == 1
    workers = RayWorkers()
    assert (workers.capacity, workers.threads) == (2, 1)
    outcome = run_study(study, folder, workers=workers, progress=telling)
    assert (len(outcome.done), len(outcome.failed), len(outcome.waiting)) == (2, 1, 0)
    assert any("FAILED" in line and "/nowhere" in line for line in telling.lines)
    assert run_study(study, whole, workers=OwnProcess()) == outcome
    done = [run for run in study.runs if run in outcome.done]
    for run in done:
        assert "training: 16 samples" in folder.log(run).read_text()
        names = ("recipe.yaml", "model/model.safetensors")
        assert all((folder.run(run) / name).read_bytes() == (whole.run(run) / name).read_bytes() for name in names)

    with pytest.raises(SpecError, match="A run of 3 CPUs and 0 GPUs does not fit this cluster, which has 2"):
        RayWorkers(cpus=3)


def test_a_machine_that_does_not_see_the_folder_is_named(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from renaissance.studies.ray_workers import RayWorkers

    workers = RayWorkers()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=f"The machine '.+' of the cluster does not see '{OWN}', where runs write"):
        workers.start(Job("a", OWN, {}, 1))
    assert list(tmp_path.iterdir()) == []


def test_runs_on_ray_are_no_less_urgent_than_what_starts_them(cluster: None) -> None:
    import ray

    assert ray.get(ray.remote(lambda: os.nice(0)).remote()) == os.nice(0)


def test_ctrl_c_stops_runs_on_ray_at_a_checkpoint(
    cluster: None, tiny_study: Studies, telling: Any, tmp_path: Path
) -> None:
    from renaissance.studies.ray_workers import RayWorkers

    study, folder = tiny_study(endless), StudyFolder(tmp_path / "study")

    def interfere() -> None:
        if len(list(folder.path.glob("runs/*/checkpoints/step-00000002"))) == 2:
            telling.on_note = lambda: None
            signal.raise_signal(signal.SIGINT)

    telling.on_note = interfere
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(StoppedError, match="The study was stopped; 0 of 6 runs have ended"):
            run_study(study, folder, workers=RayWorkers(), progress=telling)
    finally:
        signal.signal(signal.SIGINT, before)
    for place in folder.path.glob("runs/*"):
        newest = sorted(path.name for path in (place / "checkpoints").iterdir())[-1]
        assert newest > "step-00000002", "the one where it stopped"
    assert list(folder.path.glob("records/*")) == []
    assert list(folder.path.glob(".stop-*")) == []


def test_without_ray_the_line_that_installs_it_is_told() -> None:
    script = "import sys; sys.modules['ray'] = None; import renaissance.studies.ray_workers"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 1
    assert 'MissingPackageError: Runs on a cluster need the package ray. Try: pip install "renaissance-vl[ray]"' in (
        ended.stderr
    )
