"""What a power cut leaves of a checkpoint that is being written, on a disk that keeps only what was synced."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from renaissance.training import checkpoint
from renaissance.training.checkpoint import newest_checkpoint, save_checkpoint
from tests.training.test_checkpoint import loaded, made

DRAWS = 12  # of what comes of a cut at one place


class Disk:
    """A folder, and what of it is on its disk: names and contents by inode; what was not synced may come or not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: dict[int, dict[str, int]] = {}
        self.contents: dict[int, bytes] = {}
        for path in (root, *root.rglob("*")):
            self.sync(path)

    def sync(self, path: Path) -> None:
        """Note that this file, or the names in this folder, are on the disk."""
        if path.is_dir():
            self.names[path.stat().st_ino] = inodes(path)
        else:
            self.contents[path.stat().st_ino] = path.read_bytes()

    def cut(self, left: Path, draw: random.Random) -> None:
        """Write to `left` what a power cut leaves now, where what was not synced is drawn."""
        folders = [path for path in (self.root, *self.root.rglob("*")) if path.is_dir()]
        now = {path.stat().st_ino: inodes(path) for path in folders}
        data = {path.stat().st_ino: path.read_bytes() for path in self.root.rglob("*") if path.is_file()}
        self._write(self.root.stat().st_ino, left, now, data, draw)

    def _write(
        self, inode: int, left: Path, now: dict[int, dict[str, int]], data: dict[int, bytes], draw: random.Random
    ) -> None:
        if inode in data or inode in self.contents:
            left.write_bytes(self._content(inode, data, draw))
            return
        left.mkdir()
        cached, kept = now.get(inode, {}), self.names.get(inode, {})
        for name in sorted({*cached, *kept}):
            found = cached.get(name) if cached.get(name) == kept.get(name) else draw.choice([cached, kept]).get(name)
            if found is not None:
                self._write(found, left / name, now, data, draw)

    def _content(self, inode: int, data: dict[int, bytes], draw: random.Random) -> bytes:
        cached, kept = data.get(inode), self.contents.get(inode, b"")
        if cached is None or cached == kept:
            return kept
        return draw.choice([kept, cached, bytes(len(cached)), cached[: draw.randrange(len(cached))]])


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def save(folder: Path, step: int) -> None:
    model, optimiser, average = made(float(step))
    save_checkpoint(
        folder, step=step, model=model, optimiser=optimiser, average=average, facts={}, keep=1, run="a run"
    )  # fmt: skip


def steps_left(folder: Path, left: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[float | None]:
    """Save step 2 over step 1; yield which is found after cuts before each sync, renaming and deletion, and at the end.

    None: there is no whole one.
    """
    disk, draw = Disk(folder.parent), random.Random(0)
    found: list[float | None] = []

    def cut() -> None:
        for _ in range(DRAWS):
            shutil_rmtree(left, ignore_errors=True)
            disk.cut(left, draw)
            newest, _ = newest_checkpoint(left / folder.name, "a run")
            found.append(None if newest is None else loaded(newest))

    def spied(call: Callable[..., Any], after: Callable[[Any], None] = lambda of: None) -> Callable[..., Any]:
        def spy(of: Any, *others: Any, **options: Any) -> Any:
            cut()
            made = call(of, *others, **options)
            after(of)
            return made

        return spy

    shutil_rmtree = shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", spied(os.fsync, lambda of: disk.sync(Path(os.readlink(f"/proc/self/fd/{of}")))))
        patch.setattr(Path, "rename", spied(Path.rename))
        patch.setattr(shutil, "rmtree", spied(shutil.rmtree))
        save(folder, 2)
    cut()
    yield from found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of which the first is written."""
    path = tmp_path / "run" / "checkpoints"
    save(path, 1)
    return path


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it asks /proc what is synced")
def test_a_power_cut_at_any_moment_leaves_a_whole_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(steps_left(folder, tmp_path / "left", monkeypatch))
    assert len(found) >= 100
    assert set(found) == {1.0, 2.0}
    assert set(found[-DRAWS:]) == {2.0}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it asks /proc what is synced")
@pytest.mark.parametrize("forgotten", ["sync_file", "sync_folder"])
def test_a_checkpoint_that_is_not_synced_is_lost(
    forgotten: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows that the disk above can lose something."""
    monkeypatch.setattr(checkpoint, forgotten, lambda path: None)
    assert None in set(steps_left(folder, tmp_path / "left", monkeypatch))
