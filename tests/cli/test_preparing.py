"""`renaissance data prepare` and `renaissance data layouts`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from renaissance.data.prepared import Prepared
from tests.data.readers.builders import coco

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def test_layouts_shows_each_with_its_published_counts(cli: Cli) -> None:
    result = cli("data", "layouts")
    assert result.code == 0
    (line,) = [line for line in result.out.splitlines() if line.startswith("coco-captions ")]
    assert "train 82,783 (414,113)" in line
    layouts = {layout["name"]: layout for layout in cli("data", "layouts", "--json").json()["layouts"]}
    assert layouts["visual-genome"]["texts"] == {"train": 5_408_689}


def test_prepare_writes_and_tells_what_is_there_beside_what_was_published(cli: Cli, tmp_path: Path) -> None:
    coco(tmp_path / "coco", images=8)
    result = cli("data", "prepare", "coco-captions", str(tmp_path / "coco"), str(tmp_path / "out"))
    assert (result.code, result.err) == (0, "")
    (line,) = [line for line in result.out.splitlines() if line.startswith("train")]
    assert line.split() == ["train", "2", "82,783", "0.0%", "2", "10", "414,113"]
    assert result.out.endswith(f"prepared  {tmp_path / 'out'}\n")
    assert sum(1 for _ in Prepared(tmp_path / "out").items("restval")) == 2


def test_check_needs_no_folder_to_write_and_shows_what_is_wrong(cli: Cli, tmp_path: Path) -> None:
    coco(tmp_path / "coco", images=32)
    for image in (tmp_path / "coco" / "train2014").iterdir():
        image.unlink()
    result = cli("data", "prepare", "coco-captions", str(tmp_path / "coco"), "--check")
    assert result.code == 0
    assert result.err.count("left out: dataset_coco.json, image ") == 5
    assert "Rows that cannot be used: 8, of which 5 are shown." in result.err
    (line,) = [line for line in result.out.splitlines() if line.startswith("train")]
    assert line.split()[:4] == ["train", "0", "82,783", "0.0%"]
    assert cli("data", "prepare", "coco-captions", str(tmp_path / "coco"), "--check", "--json").json()["counts"]
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]


def test_what_is_wrong_with_the_command_is_told_in_one_line(cli: Cli, tmp_path: Path) -> None:
    root = str(tmp_path)
    result = cli("data", "prepare", "coco-captions", root)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "OUT is missing" in result.err
    result = cli("data", "prepare", "coco-caption", root, root + "/out")
    assert (result.code, "Did you mean 'coco-captions'?" in result.err) == (4, True)
    result = cli("data", "prepare", "coco-captions", root, root + "/out")
    assert (result.code, "cs.stanford.edu" in result.err) == (4, True)


def test_a_row_that_cannot_be_used_ends_the_command_with_its_name(cli: Cli, tmp_path: Path) -> None:
    coco(tmp_path / "coco")
    (tmp_path / "coco" / "train2014" / "COCO_train2014_000000000000.jpg").unlink()
    arguments = ("data", "prepare", "coco-captions", str(tmp_path / "coco"), str(tmp_path / "out"))
    result = cli(*arguments)
    assert result.code == 5
    assert result.err.startswith("renaissance: dataset_coco.json, image 1: The image '")
    result = cli(*arguments, "--on-bad-sample", "skip")
    assert (result.code, "Rows that cannot be used: 1." in result.err) == (0, True)


def _interrupted(running: subprocess.Popen[str], seconds: float = 300.0) -> str:
    """Press Ctrl-C until the process ends, since one that comes just before a read blocks is not seen; its stderr."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        running.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return running.communicate(timeout=10)[1]
    running.kill()
    running.communicate()
    pytest.fail(f"still running {seconds:.0f} s after the first Ctrl-C")


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    coco(tmp_path / "coco")
    file = tmp_path / "coco" / "dataset_coco.json"
    half = file.read_text()[:600]
    file.unlink()
    os.mkfifo(file)  # a corpus that never ends
    command = [sys.executable, "-m", "renaissance", "data", "prepare", "coco-captions", str(tmp_path / "coco")]
    running = subprocess.Popen(
        [*command, str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
        # what started the tests may have told its children to ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with file.open("w") as pipe:
        pipe.write(half)
        pipe.flush()
        assert (tmp_path / ".out.unfinished").exists()
        assert "Traceback" not in _interrupted(running)
    assert running.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == ["coco"]
