"""Which checkpoints are kept, and what a kill leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from renaissance.training.checkpoint import newest_checkpoint, remove_partial, save_checkpoint

Save = Callable[[int], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    model = nn.Linear(2, 2)
    optimiser = torch.optim.AdamW(model.parameters())

    def write(step: int, **facts: Any) -> Path:
        return save_checkpoint(tmp_path, step=step, model=model, optimiser=optimiser, facts=facts, keep=2)

    return write


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_are_kept(save: Save, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(step)
    assert names(tmp_path) == ["step-00000002", "step-00000003"]


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
