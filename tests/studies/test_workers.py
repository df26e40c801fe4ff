"""Workers: processes that give the same results however many they are, and that outlive nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from renaissance.errors import SpecError, StoppedError
from renaissance.studies.folder import StudyFolder
from renaissance.studies.job import forget_memory
from renaissance.studies.runner import run_study
from renaissance.studies.workers import LocalWorkers
from tests.studies.own_process import OwnProcess

Studies = Callable[..., Any]
LONGEST = 300.0  # seconds, on a busy machine

# runs the study of a file, and is killed as soon as the second of its runs has begun
KILLED = """
    import json, os, signal, sys
    from pathlib import Path
    from renaissance.studies.arms import expand
    from renaissance.studies.design import Study
    from renaissance.studies.folder import StudyFolder
    from renaissance.studies.runner import run_study
    from renaissance.studies.workers import LocalWorkers

    class Killed(LocalWorkers):
        def wait(self, seconds):
            if len(list(Path(sys.argv[2]).glob("runs/*/run.json"))) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().wait(0.01)

    study = Study.model_validate(json.loads(Path(sys.argv[1]).read_text()))
    run_study(expand(study, "smoke"), StudyFolder(sys.argv[2]), workers=Killed(1))
"""


def one_seed(study: dict[str, Any]) -> None:
    study["seeds"] = {"pretrain": 1, "finetune": 1}


def endless(study: dict[str, Any]) -> None:
    """Two pretrainings that no test waits for, each with a checkpoint after two updates."""
    study["stages"]["pretrain"] |= {"budget": {"steps": 10**6}, "keep_checkpoints": 1000}


def test_a_study_that_was_killed_leaves_no_process_and_two_workers_end_it_as_one_process_does(
    tiny_study: Studies, results: Any, tmp_path: Path
) -> None:
    study, folder = tiny_study(one_seed), StudyFolder(tmp_path / "study")
    (tmp_path / "study.json").write_text(study.study.model_dump_json())
    script = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "study.json"), str(folder.path)]
    # its workers hold its stderr, so that this returns when all of them have ended too
    killed = subprocess.run(script, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=LONGEST, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert len(list(folder.path.glob("records/*.json"))) == 1
    assert run_study(study, folder, workers=LocalWorkers(2)).complete
    whole = StudyFolder(tmp_path / "whole")
    run_study(study, whole, workers=OwnProcess())
    assert results(folder, study) == results(whole, study)
    for run in study.runs:
        assert "training: 16 samples" in folder.log(run).read_text()
        recipe = folder.run(run) / "recipe.yaml"
        assert recipe.read_bytes() == (whole.run(run) / "recipe.yaml").read_bytes()


def test_a_killed_worker_fails_its_run_alone_and_ctrl_c_stops_the_others_at_a_checkpoint(
    tiny_study: Studies, telling: Any, tmp_path: Path
) -> None:
    study, folder, workers = tiny_study(endless), StudyFolder(tmp_path / "study"), LocalWorkers(1)
    first, second = (run.id for run in study.runs.values() if run.stage == "pretrain")

    def interfere() -> None:
        if folder.record(first) is None:
            if (folder.run(first) / "run.json").is_file():
                os.kill(workers.process_ids[0], signal.SIGKILL)
        elif (folder.run(second) / "checkpoints" / "step-00000002").is_dir():
            telling.on_note = lambda: None
            signal.raise_signal(signal.SIGINT)

    telling.on_note = interfere
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(StoppedError, match="The study was stopped; 1 of 6 runs have ended"):
            run_study(study, folder, workers=workers, progress=telling)
    finally:
        signal.signal(signal.SIGINT, before)
    record = folder.record(first)
    assert record is not None
    assert record["error"] == {
        "type": "Killed",
        "message": "killed by signal 9: memory may have run out",
        "exit_code": 137,
    }
    assert any(f"{first} (low, high) FAILED" in line for line in telling.lines)
    assert folder.record(second) is None
    newest = sorted(path.name for path in (folder.run(second) / "checkpoints").iterdir())[-1]
    assert newest > "step-00000002", "the one where it stopped"
    assert json.loads((folder.run(second) / "run.json").read_text())["state"] == "running"
    assert workers.process_ids == []


@pytest.mark.parametrize(("told", "expected"), [("3", 3), ("", None), ("0", None), ("many", None)])
def test_threads_are_those_that_are_told_or_an_equal_part_of_the_cores(
    told: str, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    cores = len(os.sched_getaffinity(0))
    assert LocalWorkers(1).threads == (expected or cores)
    assert LocalWorkers(cores).threads == (expected or 1)
    assert LocalWorkers(10 * cores).threads == (expected or 1)
    assert LocalWorkers(1, threads=5).threads == 5


def test_no_workers_are_refused() -> None:
    with pytest.raises(SpecError, match="at least one worker, and not 0"):
        LocalWorkers(0)


def peak_memory() -> int:
    """Return the greatest memory that this process has held, in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system keeps the peak")
def test_the_peak_memory_of_a_run_is_not_that_of_the_run_before() -> None:
    before = torch.ones(2**27)  # 512 MB
    peak = peak_memory()
    assert peak > 2**19
    del before
    forget_memory()
    assert peak_memory() < peak - 2**18
