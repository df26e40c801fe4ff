"""A tiny study whose runs take a second each, and what its tests look at."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from renaissance.progress import Silent

Studies = Callable[..., Any]


class Telling(Silent):
    """Keeps what is said, and does something at it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.on_line: Callable[[str], object] = lambda line: None
        self.on_note: Callable[[], object] = lambda: None

    def say(self, line: str) -> None:
        self.lines.append(line)
        self.on_line(line)

    def note(self, what: str) -> None:
        self.on_note()


def given(tiny: str) -> dict[str, Any]:
    """Return the data of a study: two arms that share their pretraining, two seeds."""
    small = {
        "tasks": {"itm": {}},
        "data": {"kind": "world", "train": 16, "test": 8, "captions": 2, "image_size": 32},
        "batch": {"size": 4},
        "schedule": {"warmup_steps": 1},
        "evaluation": {"untrained": False, "shuffled": False},
    }
    return {
        "name": "tiny",
        "question": "Does a higher rate score higher?",
        "scope": "drawn scenes",
        "stages": {
            "pretrain": {**small, "start": tiny, "budget": {"steps": 4}, "checkpoint_every": 2},
            "finetune": {**small, "start": {"model": "@pretrain"}, "budget": {"steps": 2}},
        },
        "seeds": {"pretrain": 2, "finetune": 1},
        "factors": {
            "rate": {
                "about": "The learning rate of fine-tuning.",
                "varies": ["finetune.optimiser.lr"],
                "levels": {"low": {}, "high": {"finetune.optimiser.lr": 0.01}},
            }
        },
        "hypotheses": [
            {
                "name": "higher",
                "kind": "greater",
                "says": "A higher rate scores higher.",
                "weights": {"high": 1, "low": -1},
                "metric": "finetune/test/itm/accuracy",
            }
        ],
        "primary": "higher",
        "presets": {"smoke": {"about": "All of it."}},
    }


@pytest.fixture(scope="session")
def tiny_study(tiny_spec: Callable[..., str], cache: Path) -> Studies:
    """Return the tiny study at its preset; a function may change its data before."""
    from renaissance.studies.arms import expand
    from renaissance.studies.design import Study

    def design(change: Callable[[dict[str, Any]], object] | None = None, **options: Any) -> Any:
        found = deepcopy(given(tiny_spec()))
        if change is not None:
            change(found)
        return expand(Study.model_validate(found), "smoke", **options)

    return design


def scores(run: Path) -> Any:
    """Return what a run measured, without what time decides."""
    return json.loads((run / "scores.json").read_text())["scores"]


def results(folder: Any, design: Any) -> dict[str, tuple[Any, bytes]]:
    """Return the scores and weights of all runs of a design, whose files are looked at."""
    found = {}
    for run in design.runs:
        place = folder.verified(run)
        found[run] = scores(place), (place / "model" / "model.safetensors").read_bytes()
    return found


@pytest.fixture
def telling() -> Telling:
    return Telling()


@pytest.fixture(name="results")
def _results() -> Callable[..., Any]:
    return results
