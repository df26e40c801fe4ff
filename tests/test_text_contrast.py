"""The contrastive text tower of the study freezing-world: the folder that its recipe writes."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

import renaissance

RECIPE = Path(__file__).parents[1] / "recipes" / "studies" / "text_contrast.py"
START = 'tiny-vit[:1] + transformers:text-contrast(dropout=0.0, pooling="mean"), two-tower, concat(width=32)'
TEXTS = ["a red circle is left of a blue square", "two large stars"]


def test_the_folder_gives_the_text_tower_of_the_dual_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(RECIPE))["make"](Path("text-contrast"))
    ours, theirs = (
        model.text
        for model in (renaissance.build(START).eval(), renaissance.from_pretrained("renaissance/dual-encoder").eval())
    )
    with torch.no_grad():
        found, wanted = (tower.module(tower.processor(TEXTS)) for tower in (ours, theirs))
    assert torch.equal(found.tokens, wanted.tokens)
    assert torch.equal(found.pooled, wanted.pooled)
