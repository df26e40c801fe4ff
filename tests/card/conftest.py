"""A model of a run with its card, and a Hub."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from renaissance.card import write_card
from renaissance.card.sources import Sources, read_sources
from renaissance.training.run import run
from tests.hub_server import HubServer


@pytest.fixture(scope="session")
def finished(tiny_spec: Callable[..., str], cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a run with stages, an adapter, a primary score, a blind twin and an untrained one."""
    recipe = {
        "name": "tiny",
        "start": tiny_spec("frozen vision, lora(rank=2) text"),
        "tasks": {"itm": {}, "itc": {"weight": 0.5, "options": {"width": 16}}},
        "data": {"kind": "world", "train": 24, "test": 6, "captions": 2, "image_size": 32},
        "batch": {"size": 4},
        "budget": {"steps": 4},
        "schedule": {"warmup_steps": 1},
        "freezing": {"stages": [{"at": 2, "thaw": ["vision[-1:]"]}]},
        "evaluation": {"tasks": {"retrieval": {}}, "blind": "vision", "primary": "test/retrieval/R@1"},
    }
    finished = run(recipe, out=tmp_path_factory.mktemp("card") / "run")
    write_card(finished.folder)
    return finished.model_folder


@pytest.fixture(scope="session")
def sources(finished: Path) -> Sources:
    return read_sources(finished)


@pytest.fixture
def model(finished: Path, tmp_path: Path) -> Path:
    """A copy of the model, to be changed."""
    shutil.copytree(finished, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server
