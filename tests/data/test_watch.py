"""A loader process that dies, or whose code fails, is a typed error that names the process and its samples."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from renaissance.data import watch
from renaissance.data.collate import Collator
from renaissance.data.loader import loader
from renaissance.data.records import Record
from renaissance.data.sampling import BatchPlan
from renaissance.data.watch import Watch, patiently
from renaissance.errors import LoaderError
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.text import WordTokenizer

PLAN = BatchPlan(count=10, batch_size=2, seed=3)


@dataclass(frozen=True, slots=True)
class Deadly:
    """An image that ends the process which reads it, or whose code fails."""

    signal: int | None
    name: str = "deadly.png"

    def read(self) -> bytes:
        if self.signal is None:
            raise ValueError("no such luck")
        os.kill(os.getpid(), self.signal)
        return b""


@dataclass(frozen=True, slots=True)
class Hungry:
    """An image which leaves its process so much more address space as it reads itself, and then takes 64 MB of it."""

    room: int
    taken: int
    content: bytes = b""
    name: str = "hungry.png"

    def read(self) -> bytes:
        lines = Path("/proc/self/status").read_text().splitlines()
        used = next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmSize:"))
        resource.setrlimit(resource.RLIMIT_AS, (used + self.room, used + self.room))
        return self.content if bytearray(self.taken) is not None else b""


@pytest.fixture
def collator(images: ImageProcessor, texts: WordTokenizer) -> Collator:
    return Collator(images, texts, seed=3)


def deadly(records: list[Record], number: int | None) -> tuple[list[Record], str]:
    """Return records of which the one in the fourth batch of the first epoch is deadly, and its id."""
    place = int(PLAN.micro_batch(3, 0).indices[1])
    own: Any = Deadly(number)
    return [replace(record, image=own) if row == place else record for row, record in enumerate(records)], records[
        place
    ].id


@pytest.mark.parametrize("workers", [1, 2])
def test_a_loader_process_that_is_killed_is_named_with_its_samples(
    workers: int, records: list[Record], collator: Collator
) -> None:
    killed, name = deadly(records, signal.SIGKILL)
    told = (
        rf"Loader process [12] of {workers} was ended by SIGKILL while it prepared samples .*'{name}'.*fewer 'workers'"
    )
    with pytest.raises(LoaderError, match=told) as caught:
        list(loader(killed, PLAN, collator, start_step=0, steps=5, workers=workers))
    assert caught.value.exit_code == 16
    assert multiprocessing.active_children() == []


def test_code_that_fails_in_a_loader_process_is_named_with_its_samples_and_its_traceback(
    records: list[Record], collator: Collator
) -> None:
    failing, name = deadly(records, None)
    with pytest.raises(LoaderError, match=rf"prepared samples .*'{name}'.* \(ValueError: no such luck\)") as caught:
        list(loader(failing, PLAN, collator, start_step=0, steps=5, workers=2))
    assert "in read" in caught.value.__notes__[0]
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("room", "taken"), [(2**23, 2**26), (0, 0)], ids=["to read", "to send"])
def test_a_loader_process_without_memory_is_named_with_its_samples_and_what_to_do(
    room: int, taken: int, records: list[Record], collator: Collator
) -> None:
    place = int(PLAN.micro_batch(3, 0).indices[1])
    own: Any = Hungry(room, taken, records[place].image.read())
    hungry = [replace(record, image=own) if row == place else record for row, record in enumerate(records)]
    told = (
        rf"Loader process 2 of 2 ran out of memory while it prepared samples .*'{records[place].id}'.*fewer 'workers'"
    )
    with pytest.raises(LoaderError, match=told) as caught:
        list(loader(hungry, PLAN, collator, start_step=0, steps=5, workers=2))
    assert caught.value.exit_code == 16
    assert multiprocessing.active_children() == []


def test_code_that_fails_without_loader_processes_fails_as_it_is(records: list[Record], collator: Collator) -> None:
    failing, _ = deadly(records, None)
    with pytest.raises(ValueError, match="no such luck"):
        list(loader(failing, PLAN, collator, start_step=0, steps=5))


def test_loader_processes_outlive_a_signal_to_the_whole_group(records: list[Record], collator: Collator) -> None:
    made = loader(records, PLAN, collator, start_step=0, steps=40, workers=2)
    try:
        steps = [next(made)[0] for _ in range(3)]
        for child in multiprocessing.active_children():
            assert child.pid is not None
            os.kill(child.pid, signal.SIGINT)
            os.kill(child.pid, signal.SIGTERM)
        steps += [step for step, _ in made]
    finally:
        made.close()
    assert steps == list(range(40))
    assert multiprocessing.active_children() == []


# --- hanging ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slow:
    """An image whose reading takes seconds, and tells in a file that it has begun."""

    told: Path
    seconds: float
    content: bytes = b""
    name: str = "slow.png"

    def read(self) -> bytes:
        self.told.touch()
        time.sleep(self.seconds)
        return self.content


def slow(records: list[Record], image: Slow) -> tuple[list[Record], str]:
    """Return records of which the one in the fourth batch of the first epoch is slow, and its id."""
    place = int(PLAN.micro_batch(3, 0).indices[1])
    own: Any = replace(image, content=records[place].image.read())
    return [*records[:place], replace(records[place], image=own), *records[place + 1 :]], records[place].id


def test_a_loader_process_that_hangs_is_named_with_its_samples_and_ended(
    records: list[Record], collator: Collator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, name = slow(records, Slow(tmp_path / "told", 3600.0))
    hours = itertools.count()
    waited: list[bool] = []
    # the clock of the training stands still until the slow batch is waited for, and was begun
    clock = SimpleNamespace(monotonic=lambda: 3600.0 * next(hours) if waited and (tmp_path / "told").exists() else 0.0)
    monkeypatch.setattr(watch, "time", clock)
    monkeypatch.setattr(watch, "LOOK", 0.05)
    made = loader(hanging, PLAN, collator, start_step=0, steps=5, workers=2)
    try:
        assert [next(made)[0] for _ in range(3)] == [0, 1, 2]
        waited.append(True)
        told = rf"Loader process 2 of 2 hangs: it has not prepared samples .*'{name}'.* in 122 seconds.*then --resume"
        with pytest.raises(LoaderError, match=told):
            next(made)
    finally:
        made.close()
    assert multiprocessing.active_children() == []


def test_a_loader_process_that_is_slow_is_waited_for(
    records: list[Record], collator: Collator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, _ = slow(records, Slow(tmp_path / "told", 0.5))
    monkeypatch.setattr(watch, "LOOK", 0.05)
    steps = [step for step, _ in loader(waiting, PLAN, collator, start_step=0, steps=5, workers=2)]
    assert steps == list(range(5))
    assert (tmp_path / "told").exists()


def test_samples_that_no_loader_process_begins_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Never:
        def __iter__(self) -> Iterator[Any]:
            return self

        def __next__(self) -> Any:
            raise RuntimeError("DataLoader timed out after 5.0 seconds")

    monkeypatch.setattr(watch, "LONGEST_WAIT", -2.0)
    told = Watch(multiprocessing.get_context("fork"), 2).telling(Never(), lambda number: f"samples of {number}", 7, 2)
    assert "No loader process has begun samples of 7 in 0 seconds" in str(next(told))


@dataclass(frozen=True, slots=True)
class Waiting:
    """An image whose reading goes on when somebody was told that it takes long."""

    told: list[Any]
    content: bytes = b""
    name: str = "waiting.png"

    def read(self) -> bytes:
        end = time.monotonic() + 300.0
        while not any("samples" in str(warning.message) for warning in self.told):
            assert time.monotonic() < end, "nobody was told"
            time.sleep(0.01)
        return self.content


def test_what_the_training_itself_reads_for_too_long_is_told_and_waited_for(
    records: list[Record], collator: Collator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LONGEST_WAIT", -1.5)  # half a second for two samples
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        waiting, name = slow(records, cast(Any, Waiting(told)))
        steps = [step for step, _ in loader(waiting, PLAN, collator, start_step=0, steps=5)]
    assert steps == list(range(5))
    lines = [str(warning.message) for warning in told if warning.category is RuntimeWarning]
    (line,) = [line for line in lines if repr(name) in line]
    assert re.search(r"^Reading samples '.*' takes longer than 0 seconds\..* --resume continues it\.$", line)


def test_a_stream_that_does_not_go_on_is_told_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LONGEST_WAIT", -1.5)

    def parts() -> Iterator[str]:
        end = time.monotonic() + 300.0
        while not told:
            assert time.monotonic() < end, "nobody was told"
            time.sleep(0.01)
        yield "read"

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert list(patiently(parts(), lambda number: f"micro-batch {number + 1}", 7, 2)) == ["read"]
    assert str(told[0].message).startswith("Reading micro-batch 8 takes longer than 0 seconds")
