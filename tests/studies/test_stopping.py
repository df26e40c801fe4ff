"""A run on another machine stops by a file: heard where Ctrl-C is ignored, once, and again where it was swallowed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from renaissance.studies.folder import StudyFolder
from renaissance.studies.stopping import AGAIN, StopFiles, obeying
from renaissance.training.signals import listening

LOOK_S = 0.01
LONG_S = 300.0


@pytest.fixture
def files(tmp_path: Path) -> StopFiles:
    return StopFiles.made_in(tmp_path)


@pytest.fixture(autouse=True)
def deaf() -> Iterator[None]:
    """Ignore Ctrl-C, as what a shell starts in the background does, and block it, as Ray does."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    yield
    assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert signal.signal(signal.SIGINT, before) is signal.SIG_IGN


def test_a_training_hears_that_it_is_to_stop_once_and_ends_after_its_checkpoint(files: StopFiles) -> None:
    looked, written = threading.Event(), []

    def training() -> None:
        with obeying(files, every=LOOK_S), listening() as signals, signals.held():
            files.ask()
            while signals.caught is None:
                assert not looked.wait(LOOK_S)
            looked.wait(2 * AGAIN * LOOK_S)  # a second one would end it here
            written.append("checkpoint")

    with pytest.raises(KeyboardInterrupt):
        training()
    assert written == ["checkpoint"]


def test_what_a_library_swallows_is_said_again(files: StopFiles) -> None:
    files.ask()
    waiting, swallowed = threading.Event(), 0
    with obeying(files, every=LOOK_S), listening():
        while swallowed < 2:
            try:
                assert not waiting.wait(LONG_S)
            except KeyboardInterrupt:
                swallowed += 1


def test_nothing_is_interrupted_that_does_not_listen_yet(files: StopFiles) -> None:
    files.ask()
    with obeying(files, every=LOOK_S):
        threading.Event().wait(3 * LOOK_S)


def test_a_run_that_was_asked_to_stop_before_does_not_begin(files: StopFiles) -> None:
    assert not files.begun("a")
    assert files.begin("a")
    files.ask()
    assert not files.begin("b")
    assert files.begun("a")
    assert files.begun("b")


def test_what_a_kill_left_goes_when_the_folder_is_written_again(tmp_path: Path) -> None:
    files = StopFiles.made_in(tmp_path)
    with StudyFolder(tmp_path).writing():
        assert not files.place.exists()
