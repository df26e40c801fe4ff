"""What a start from a saved model thaws and freezes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from renaissance import run
from renaissance.container import load
from renaissance.errors import SpecError

FROZEN = "tiny-vit[:1] + tiny-bert(layers=1), two-tower, random both, frozen both, lxmert(layers=1, width=32, heads=2)"


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    return run(recipe(FROZEN), out=tmp_path / "frozen").folder


def recipe(start: Any) -> dict[str, Any]:
    return {
        "start": start,
        "tasks": {"itm": {}},
        "data": {"kind": "world", "train": 16, "test": 8, "image_size": 32},
        "batch": {"size": 8},
        "budget": {"steps": 2},
        "evaluation": {"untrained": False, "shuffled": False},
    }


def test_what_surgery_thaws_trains_and_what_it_freezes_holds_still(frozen: Path, tmp_path: Path) -> None:
    surgery = {"thaw": ["text"], "freeze": ["text.embeddings", "fusion"]}
    done = run(recipe({"model": str(frozen), "surgery": surgery}), out=tmp_path / "thawed")
    before, after = load(frozen / "model").state_dict(), load(done.model_folder).state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert any(name.startswith("encoder.text.blocks.") for name in changed)
    assert all(name.startswith(("encoder.text.blocks.", "tasks.")) for name in changed)


def test_without_surgery_what_was_frozen_stays_so(frozen: Path, tmp_path: Path) -> None:
    done = run(recipe({"model": str(frozen)}), out=tmp_path / "again")
    before, after = load(frozen / "model").state_dict(), load(done.model_folder).state_dict()
    assert all(
        torch.equal(before[name], after[name]) for name in after if name.startswith(("encoder.vision", "encoder.text"))
    )


def test_a_thawed_model_is_saved_as_one_that_trains(frozen: Path, tmp_path: Path) -> None:
    done = run(recipe({"model": str(frozen), "surgery": {"thaw": ["both"]}}), out=tmp_path / "thawed")
    assert all(parameter.requires_grad for parameter in load(done.model_folder).encoder.parameters())


def test_a_part_that_is_none_is_refused(frozen: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"has 1 layers"):
        run(recipe({"model": str(frozen), "surgery": {"thaw": ["text[4:]"]}}), out=tmp_path / "thawed")
    assert not (tmp_path / "thawed").exists()
