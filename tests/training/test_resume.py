"""A killed run ends like one that was never stopped: sampled here, whole in `make torture`; and two processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from renaissance.data.sampling import BatchPlan
from renaissance.training.checkpoint import newest_checkpoint

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds, on a machine that does other things


def table(*arguments: str) -> dict[str, dict[str, int]]:
    """Return the rows of benchmarks/resume.py."""
    command = [sys.executable, str(ROOT / "benchmarks" / "resume.py"), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


def check(rows: dict[str, dict[str, int]]) -> None:
    for name, counts in rows.items():
        assert counts["survived"] == counts["kills"], name
        assert counts["identical"] == counts["chains"], name


def test_a_run_that_is_killed_again_and_again_ends_like_one_that_never_was() -> None:
    rows = table("--kills", "3", "--rows", "operation, workers 0-2-1", "operation, workers 0,")
    assert len(rows) == 2
    assert sum(counts["kills"] for counts in rows.values()) >= 2
    check(rows)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_whatever_ends_a_run_it_ends_like_one_that_never_was() -> None:
    rows = table("--chains", "10", "--kills", "5", "--seed", "1")
    assert len(rows) == 12
    assert sum(counts["kills"] for counts in rows.values()) > 200
    check(rows)


# --- two processes --------------------------------------------------------------------------------------------------


@pytest.fixture
def endless(tmp_path: Path, cache: Path) -> list[str]:
    """The command of a run of two processes that goes on until it is stopped, with a checkpoint every two updates."""
    recipe: dict[str, Any] = {
        "start": "tiny-vit(layers=1, width=16, heads=2, mlp_width=32, image_size=16, patch_size=8) + "
        "tiny-bert(layers=1, width=16, heads=2, mlp_width=32), random both, lxmert(layers=1, width=16, heads=2)",
        "tasks": {"itm": {}},
        "data": {"kind": "world", "train": 24, "test": 4, "captions": 2, "image_size": 16},
        "batch": {"size": 4},
        "budget": {"steps": 10**9},
        "schedule": {"warmup_steps": 1},
        "evaluation": {"untrained": False},
        "checkpoint_every": 2,
    }
    (tmp_path / "endless.yaml").write_text(yaml.safe_dump(recipe))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*torchrun, "-m", "renaissance", "run", str(tmp_path / "endless.yaml"), "--out", str(tmp_path / "run")]


def changed(recipe: Path, **sections: Any) -> None:
    """Put other sections into the file of a recipe."""
    recipe.write_text(yaml.safe_dump({**yaml.safe_load(recipe.read_text()), **sections}))


def waited(until: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """Wait until something is there; return it."""
    end = time.monotonic() + PATIENCE
    while not (found := until()):
        assert process.poll() is None, f"torchrun ended by itself, with {process.returncode}"
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def children(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def says_that_another_is_lost(told: str, rank: int) -> bool:
    """Return whether this process, of two, ended with the error that names the loss of the other one."""
    line = rf"renaissance: Process {rank} of 2 \(counted from 0\) has lost another process of the run, which ended or"
    return bool(re.search(line, told)) and "This is a bug" not in told


def rank_of(process: int) -> str:
    told = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    return next((entry.removeprefix(b"RANK=").decode() for entry in told if entry.startswith(b"RANK=")), "")


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[list[str]], tuple[subprocess.Popen[str], dict[str, int]]]]:
    """Start a run of two processes; return torchrun, and the two by rank, once they have written a new checkpoint."""
    opened: list[subprocess.Popen[str]] = []

    def newest() -> Path | None:
        return newest_checkpoint(tmp_path / "run" / "checkpoints")[0]

    def start(command: list[str]) -> tuple[subprocess.Popen[str], dict[str, int]]:
        before = newest()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (tmp_path / "told").open("w") as told:
            process = subprocess.Popen(command, stdout=told, stderr=told, text=True, env=environment, cwd=tmp_path)
        opened.append(process)
        waited(lambda: newest() not in (None, before), process)
        return process, {rank_of(child): child for child in children(process.pid)}

    try:
        yield start
    finally:
        for process in opened:
            for child in children(process.pid) if process.poll() is None else []:
                os.kill(child, signal.SIGKILL)
            process.kill()
            process.wait()


def pictures(folder: Path, batch: int, update: int) -> Path:
    """Make pictures, of which one is broken: the last that the second of two processes reads in an update."""
    from PIL import Image

    folder.mkdir()
    plan = BatchPlan(count=24, batch_size=batch, world_size=2, rank=1, seed=0)
    broken = int(plan.micro_batch(update, 0).indices[-1])
    for number in range(24):
        Image.new("RGB", (16, 16), (10 * number, 100, 200)).save(folder / f"{number:02}.png")
    path = folder / f"{broken:02}.png"
    path.write_bytes(path.read_bytes()[:40])
    lines = ({"image": f"{number:02}.png", "caption": f"picture {number}", "part": "train"} for number in range(24))
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.timeout(900)
def test_an_error_in_one_process_ends_all_and_leaves_a_checkpoint(
    endless: list[str],
    started: Callable[[list[str]], tuple[subprocess.Popen[str], dict[str, int]]],
    tmp_path: Path,
) -> None:
    data = {"kind": "images", "path": str(pictures(tmp_path / "pictures", 4, 5)), "hold_out": []}
    changed(tmp_path / "endless.yaml", data=data)
    process, ranks = started(endless)
    assert process.wait(PATIENCE) != 0
    told = (tmp_path / "told").read_text()
    assert re.search(r"captions\.jsonl, row \d+.*\.png", told), told
    assert says_that_another_is_lost(told, 0), told
    assert not any(map(is_alive, ranks.values()))
    newest, faults = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert (newest.name, faults) == ("step-00000004", [])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.timeout(900)
def test_a_process_that_stands_still_ends_all(
    endless: list[str],
    started: Callable[[list[str]], tuple[subprocess.Popen[str], dict[str, int]]],
    tmp_path: Path,
) -> None:
    changed(tmp_path / "endless.yaml", distributed={"timeout": 60.0})
    process, ranks = started(endless)
    os.kill(ranks["1"], signal.SIGSTOP)
    assert process.wait(PATIENCE) != 0
    assert says_that_another_is_lost((tmp_path / "told").read_text(), 0)
    assert not any(map(is_alive, ranks.values()))
    newest, faults = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert newest is not None
    assert faults == []


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.timeout(900)
def test_two_processes_stop_at_one_checkpoint_go_on_from_it_and_end_together(
    endless: list[str],
    started: Callable[[list[str]], tuple[subprocess.Popen[str], dict[str, int]]],
    tmp_path: Path,
) -> None:
    process, ranks = started(endless)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) != 0
    told = (tmp_path / "told").read_text()
    found, faults = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert found is not None, told
    assert faults == []
    update = int(found.name.removeprefix("step-"))
    assert told.count(f"Stopped by SIGTERM after update {update} of ") == 2, told
    assert not any(map(is_alive, ranks.values()))

    process, ranks = started([*endless, "--resume"])
    assert set(ranks) == {"0", "1"}
    os.kill(ranks["1"], signal.SIGKILL)
    assert process.wait(PATIENCE) != 0
    assert says_that_another_is_lost((tmp_path / "told").read_text(), 0)
    assert not any(map(is_alive, ranks.values()))
    last, faults = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert last is not None
    assert last.name > found.name
    assert faults == []
