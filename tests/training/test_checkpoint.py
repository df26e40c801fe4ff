"""Which checkpoints are kept, what a kill or a full disk leaves, and that nothing that was changed is ever loaded."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from renaissance.errors import CheckpointError, OutputError
from renaissance.training.averaging import Average
from renaissance.training.checkpoint import (
    checkpoint_at,
    load_checkpoint,
    newest_checkpoint,
    remove_partial,
    save_checkpoint,
)

Save = Callable[..., Path]
FILES = ("average.safetensors", "manifest.json", "model.safetensors", "optimiser.safetensors", "state.json")


def made(value: float) -> tuple[nn.Module, torch.optim.Optimizer, Average]:
    """Return a model, its optimiser after an update, and its average, all of this value."""
    model = nn.Linear(64, 64)
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
        parameter.grad = torch.full_like(parameter, value)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0)
    optimiser.step()
    return model, optimiser, Average(model, 0.9)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write the checkpoint of a step, whose tensors are of the step's number."""

    def write(step: int, *, run: str = "a run", keep: int = 2, besides: tuple[int, ...] = ()) -> Path:
        model, optimiser, average = made(float(step))
        return save_checkpoint(
            tmp_path, step=step, model=model, optimiser=optimiser, average=average, facts={}, keep=keep, run=run,
            besides=besides,
        )  # fmt: skip

    return write


def loaded(path: Path) -> float:
    """Load a checkpoint; return the step that all of it is of."""
    model, optimiser, average = made(0.0)
    step = load_checkpoint(path, model=model, optimiser=optimiser, average=average)["step"]
    moments = [of["exp_avg"] / 0.1 for of in optimiser.state.values()]
    tensors = (*model.parameters(), *average.tensors().values(), *moments)
    assert all(torch.allclose(tensor, torch.full_like(tensor, step)) for tensor in tensors)
    return float(step)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- which are kept -------------------------------------------------------------------------------------------------


def test_the_newest_are_kept(save: Save, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(step)
    assert names(tmp_path) == ["step-00000002", "step-00000003"]


def test_the_best_is_kept_beside_the_newest_until_another_is(save: Save, tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save(step, besides=(1,))
    assert names(tmp_path) == ["step-00000001", "step-00000003", "step-00000004"]
    save(5, besides=(5,))
    assert names(tmp_path) == ["step-00000004", "step-00000005"]


def test_what_a_resumed_run_writes_outlives_the_damaged_ones_that_it_passed_over(save: Save, tmp_path: Path) -> None:
    for step in (10, 20):
        save(step)
    (tmp_path / "step-00000020" / "model.safetensors").write_bytes(b"damaged")
    assert newest_checkpoint(tmp_path)[0] == tmp_path / "step-00000010"
    written = save(15)
    assert newest_checkpoint(tmp_path) == (written, [])
    assert names(tmp_path) == ["step-00000010", "step-00000015"]


def test_a_damaged_checkpoint_of_the_same_step_is_written_again(save: Save, tmp_path: Path) -> None:
    path = save(10)
    (path / "state.json").write_text("{}")
    save(10)
    assert newest_checkpoint(tmp_path) == (path, [])


def test_what_a_kill_left_does_not_stop_the_next_one_and_can_be_removed(save: Save, tmp_path: Path) -> None:
    (tmp_path / ".step-00000010.0000").mkdir()
    save(10)
    remove_partial(tmp_path)
    assert names(tmp_path) == ["step-00000010"]


def test_all_of_it_is_of_the_step_that_was_saved(save: Save) -> None:
    assert [loaded(save(step)) for step in (3, 4)] == [3.0, 4.0]


def test_a_best_checkpoint_that_was_changed_is_refused(save: Save, tmp_path: Path) -> None:
    path = save(10)
    assert checkpoint_at(tmp_path, 10, "a run") == path
    (path / "average.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"average\.safetensors is missing"):
        checkpoint_at(tmp_path, 10, "a run")


@pytest.mark.parametrize(
    ("manifest", "fault"),
    [(None, "is missing"), ("{", "is no JSON"), ("[]", "is not that of a checkpoint")],
)
def test_a_manifest_that_is_none_is_told(manifest: str | None, fault: str, save: Save, tmp_path: Path) -> None:
    path = save(10) / "manifest.json"
    path.unlink() if manifest is None else path.write_text(manifest)
    assert newest_checkpoint(tmp_path) == (None, [f"step-00000010: manifest.json {fault}"])


# --- damage ---------------------------------------------------------------------------------------------------------


def flipped(data: bytes, draw: random.Random) -> bytes:
    place, bit = draw.randrange(len(data)), draw.randrange(8)
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def truncated(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def zeroed(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + bytes(len(data[place : place + 4096])) + data[place + 4096 :]


@pytest.mark.parametrize(("damage", "times"), [(flipped, 200), (truncated, 50), (zeroed, 20)])
def test_any_change_of_any_file_is_found_and_the_one_before_is_used(
    damage: Callable[[bytes, random.Random], bytes], times: int, save: Save, tmp_path: Path
) -> None:
    before, newest, draw = save(1), save(2), random.Random(0)
    passed = []
    for _ in range(times):
        path = newest / draw.choice(FILES)
        data = path.read_bytes()
        path.write_bytes(changed := damage(data, draw))
        found, faults = newest_checkpoint(tmp_path, "a run")
        if changed != data and (found != before or len(faults) != 1 or not faults[0].startswith("step-00000002: ")):
            passed.append((path.name, faults))
        path.write_bytes(data)
    assert passed == []
    assert newest_checkpoint(tmp_path, "a run") == (newest, [])


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_or_of_another_step_is_found(name: str, save: Save, tmp_path: Path) -> None:
    before, newest = save(1), save(2)
    data = (newest / name).read_bytes()
    shutil.copy(before / name, newest / name)
    assert newest_checkpoint(tmp_path, "a run")[0] == before
    (newest / name).unlink()
    assert newest_checkpoint(tmp_path, "a run")[0] == before
    (newest / name).write_bytes(data)
    assert newest_checkpoint(tmp_path, "a run")[0] == newest


def test_a_whole_checkpoint_of_another_step_or_another_run_is_passed_over(save: Save, tmp_path: Path) -> None:
    before, newest = save(1), save(2)
    shutil.rmtree(newest)
    shutil.copytree(before, newest)
    assert newest_checkpoint(tmp_path, "a run") == (before, ["step-00000002: it holds step 1"])
    assert newest_checkpoint(tmp_path, "another run")[0] is None
    assert "step-00000001: it is of another run" in newest_checkpoint(tmp_path, "another run")[1]


def test_nonsense_in_the_place_of_a_manifest_is_no_whole_checkpoint(save: Save, tmp_path: Path) -> None:
    path = save(1)
    whole = json.loads((path / "manifest.json").read_text())
    for nonsense in (
        [],
        None,
        {**whole, "files": {}},
        {**whole, "files": []},
        {**whole, "format": 9},
        {**whole, "step": "x"},
    ):
        (path / "manifest.json").write_text(json.dumps(nonsense))
        assert newest_checkpoint(tmp_path, "a run")[0] is None, nonsense


# --- kills and full disks -------------------------------------------------------------------------------------------


def in_a_fork(work: Callable[[], object]) -> int:
    """Run something in a copy of this process; return its exit code, negative for a signal."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def killed_at(operation: int, work: Callable[[], object]) -> Callable[[], None]:
    """Return work that kills its process before its n-th operation on files."""

    def run() -> None:
        count = 0

        def heard(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event == "open" or event.startswith(("os.", "shutil.")):
                count += 1
                if count == operation:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(heard)
        work()

    return run


def test_a_kill_before_any_file_operation_leaves_a_whole_checkpoint(save: Save, tmp_path: Path) -> None:
    """The third is written over a damaged one, and takes the place of the first."""
    for step in (1, 2, 3):
        save(step, keep=3)
    (tmp_path / "step-00000003" / "state.json").write_text("{}")
    start = tmp_path.with_name("start")
    shutil.copytree(tmp_path, start)
    kills, survivors, code = 0, [], -signal.SIGKILL
    while code == -signal.SIGKILL:
        shutil.rmtree(tmp_path)
        shutil.copytree(start, tmp_path)
        code = in_a_fork(killed_at(kills + 1, lambda: save(3)))
        found, _ = newest_checkpoint(tmp_path, "a run")
        assert found is not None, f"nothing is left after a kill at operation {kills + 1}"
        survivors.append(loaded(found))
        remove_partial(tmp_path)
        assert all(name.startswith("step-") for name in names(tmp_path))
        kills += code == -signal.SIGKILL
    assert code == 0
    assert kills > 25
    assert survivors == sorted(survivors)
    assert set(survivors) == {2.0, 3.0}


@contextmanager
def no_file_beyond(size: int, *, kills: bool = False) -> Iterator[None]:
    """Let the system refuse to write more than so many bytes into a file, as a full disk does; or kill at that byte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kills else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("share", range(20))
def test_a_disk_that_fills_is_a_typed_error_that_leaves_the_one_before_and_nothing_else(
    share: int, save: Save, tmp_path: Path
) -> None:
    before = save(1)
    largest = max(path.stat().st_size for path in before.iterdir())
    with (
        no_file_beyond(largest * share // 20),
        pytest.raises(OutputError, match=r"needs [\d,]+ bytes, and the disk has [\d,]+ free.*then --resume"),
    ):
        save(2)
    assert names(tmp_path) == ["step-00000001"]
    assert loaded(before) == 1.0


@pytest.mark.parametrize("share", range(1, 20, 3))
def test_a_kill_in_the_middle_of_a_file_leaves_the_one_before(share: int, save: Save, tmp_path: Path) -> None:
    before = save(1)
    largest = max(path.stat().st_size for path in before.iterdir())

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with no_file_beyond(largest * share // 20, kills=True):
            save(2)

    assert in_a_fork(work) == -signal.SIGXFSZ
    assert newest_checkpoint(tmp_path, "a run") == (before, [])
    remove_partial(tmp_path)
    assert names(tmp_path) == ["step-00000001"]


def refused_at(operation: int, number: int, work: Callable[[], object]) -> Callable[[], None]:
    """Return work whose n-th new file, folder, name or sync the system refuses; it is to end in a typed error."""

    def run() -> None:
        count, sync = 0, os.fsync

        def refuse() -> None:
            nonlocal count
            count += 1
            if count == operation:
                raise OSError(number, os.strerror(number))

        def heard(event: str, arguments: tuple[Any, ...]) -> None:
            if event in ("os.mkdir", "os.rename") or (event == "open" and arguments[2] & os.O_CREAT):
                refuse()

        def synced(descriptor: Any) -> None:
            refuse()
            sync(descriptor)

        sys.addaudithook(heard)
        os.fsync = synced
        try:
            work()
        except OutputError as error:
            os._exit(TYPED if "needs" in str(error) else 1)

    return run


TYPED = 99


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_whatever_operation_the_system_refuses_the_error_is_typed_and_a_whole_checkpoint_is_left(
    number: int, save: Save, tmp_path: Path
) -> None:
    before, refused, code = save(1), 0, TYPED
    while code == TYPED:
        code = in_a_fork(refused_at(refused + 1, number, lambda: save(2)))
        found, faults = newest_checkpoint(tmp_path, "a run")
        assert found is not None
        assert (loaded(found), faults) in ((1.0, []), (2.0, []))
        assert all(name.startswith("step-") for name in names(tmp_path))
        shutil.rmtree(tmp_path / "step-00000002", ignore_errors=True)
        refused += code == TYPED
    assert code == 0
    assert refused > 10
    assert loaded(before) == 1.0
