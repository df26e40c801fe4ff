"""One process writes a run, however many start in its folder, and a lock outlives nobody."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from renaissance.errors import OutputError
from renaissance.recipe import Recipe, validate_recipe
from renaissance.training.folder import create_folder
from renaissance.training.lock import LOCK, locked

STARTS = 50


@pytest.fixture
def recipe() -> Recipe:
    return validate_recipe({"start": "tiny-vit + tiny-bert, random both", "tasks": {"itm": {}}})


def forked(work: Callable[[], int]) -> int:
    process = os.fork()
    if process == 0:
        code = 99
        try:
            code = work()
        except OutputError as error:
            code = error.exit_code
        finally:
            os._exit(code)
    return process


def code_of(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
def test_of_many_starts_in_one_folder_exactly_one_wins(resumed: bool, recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    if resumed:
        create_folder(recipe, folder)
    gate, opened = os.pipe()  # closed to let all of them begin
    done, ended = os.pipe()  # closed to let the winner end

    def start() -> int:
        os.close(opened)
        os.close(ended)
        os.read(gate, 1)
        if not resumed:
            create_folder(recipe, folder)
        with locked(folder):
            os.read(done, 1)
        return 0

    processes = [forked(start) for _ in range(STARTS)]
    try:
        os.close(opened)
        losers = [os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]) for _ in range(STARTS - 1)]
    finally:
        os.close(ended)
        os.close(gate)
        os.close(done)
    assert losers == [8] * (STARTS - 1)
    assert os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]) == 0
    assert len(processes) == STARTS
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_who_holds_it_is_named(tmp_path: Path) -> None:
    held, told = os.pipe()

    def hold() -> int:
        with locked(tmp_path):
            os.write(told, b"!")
            signal.pause()
        return 0

    process = forked(hold)
    try:
        os.read(held, 1)
        with (
            pytest.raises(OutputError, match=f"Process {process} is writing the run in '.*'; wait until it ends"),
            locked(tmp_path),
        ):
            pass
        content = json.loads((tmp_path / LOCK).read_text())
        (tmp_path / LOCK).write_text(json.dumps({**content, "boot": "another"}))
        with pytest.raises(OutputError, match=f"Process {process} of another machine is writing"), locked(tmp_path):
            pass
        (tmp_path / LOCK).write_text("nonsense")
        with pytest.raises(OutputError, match="Another process is writing"), locked(tmp_path):
            pass
    finally:
        os.kill(process, signal.SIGKILL)
        os.close(held)
        os.close(told)
    assert code_of(process) == -signal.SIGKILL
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()


@pytest.mark.parametrize("content", ['{"process": 1, "boot": ""}', '{"process": 4194304, "boot": "another"}', "{", ""])
def test_a_lock_that_nobody_holds_any_more_is_taken_over_whatever_it_says(content: str, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(content)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    assert (tmp_path / LOCK).read_text() == ""


def test_a_folder_that_cannot_hold_a_lock_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), locked(tmp_path / "nowhere"):
        pass
