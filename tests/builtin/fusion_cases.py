"""Fusion heads in every kind of options, with streams to fuse; for the tests beside this file."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.api import Features, Joint, Output, TowerFacts
from renaissance.builtin.fusion_entries import FUSION_HEADS
from renaissance.toolkit.attention import Block

ENTRIES = {entry.name: entry for entry in FUSION_HEADS}
VISION, TEXT = 12, 20  # tower widths
LAYERS: dict[str, Any] = {"layers": 3, "heads": 2, "dropout": 0.0}
WIDE = {**LAYERS, "width": 16}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lxmert": ("lxmert", WIDE),
    "lxmert, pre-norm": ("lxmert", {**WIDE, "norm": "pre"}),
    "co-attention": ("co-attention", WIDE),
    "co-attention, pre-norm": ("co-attention", {**WIDE, "norm": "pre"}),
    "concat": ("concat", {"width": 16}),
    "merged-attention": ("merged-attention", WIDE),
    "merged-attention, post-norm, no class token": (
        "merged-attention",
        {**WIDE, "norm": "post", "class_token": False},
    ),
    "bridge": ("bridge", WIDE),
    "bridge, pre-norm": ("bridge", {**WIDE, "norm": "pre"}),
    "bridge, bare": ("bridge", {**WIDE, "shared_projection": False, "vision_norm": False}),
    "text-cross-attention": ("text-cross-attention", WIDE),
    "text-cross-attention, pre-norm": ("text-cross-attention", {**WIDE, "norm": "pre"}),
    "text-cross-attention, shared": ("text-cross-attention", {**LAYERS, "text_blocks": "shared"}),
    "text-cross-attention, inherited": ("text-cross-attention", {**LAYERS, "text_blocks": "inherited"}),
    "q-former": ("q-former", {**WIDE, "queries": 4}),
    "q-former, pre-norm": ("q-former", {**WIDE, "queries": 4, "norm": "pre"}),
    "q-former, shared": ("q-former", {**LAYERS, "queries": 4, "text_blocks": "shared", "pooler": "none"}),
    "q-former, inherited": ("q-former", {**LAYERS, "queries": 4, "text_blocks": "inherited", "cross_every": 3}),
}
each_case = pytest.mark.parametrize("case", CASES)
each_token = pytest.mark.parametrize("class_tokens", [True, False])


def tower_blocks(count: int = 3) -> list[Block]:
    torch.manual_seed(7)
    return [varied(Block(TEXT, 2, 40, 0.0)).eval() for _ in range(count)]


def varied(module: Any) -> Any:
    """Make weights larger than at the start, so that every path counts."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def build(
    name: str, given: dict[str, Any], blocks: Sequence[Block] = (), *, class_tokens: bool = True, **more: Any
) -> Any:
    entry: Any = ENTRIES[name]
    module, factory = entry.factory.split(":")
    facts = {"vision": TowerFacts(VISION, class_tokens), "text": TowerFacts(TEXT, class_tokens)}
    torch.manual_seed(1)
    options = entry.options(**{**given, **more})
    extra = {"text_blocks": blocks} if entry.needs(options).text_blocks else {}
    return getattr(importlib.import_module(module), factory)(options, **facts, **extra).eval()


def head(case: str, *, class_tokens: bool = True, **more: Any) -> Any:
    name, given = CASES[case]
    return varied(build(name, given, tower_blocks(), class_tokens=class_tokens, **more))


def every(case: str) -> frozenset[Output]:
    return ENTRIES[CASES[case][0]].outputs


def inputs(pairs: int = 3, images: int = 5, words: int = 6) -> tuple[Features, Features]:
    """Return a vision stream [P, N, 12] without padding and a text stream [P, L, 20] with some."""
    generator = torch.Generator().manual_seed(2)

    def tokens(count: int, width: int) -> Tensor:
        return torch.randn(pairs, count, width, generator=generator)

    mask = torch.arange(words) < torch.arange(words - pairs + 1, words + 1).unsqueeze(1)
    vision = tuple(tokens(images, VISION) for _ in range(3))
    text = tuple(tokens(words, TEXT) for _ in range(3))
    real = torch.ones(pairs, images, dtype=torch.bool)
    return Features(vision[-1], real, layers=vision), Features(text[-1], mask, None, text, tokens(words, TEXT))


def changed(features: Features, change: Any, mask: Tensor) -> Features:
    embedded = None if features.embedded is None else change(features.embedded)
    return Features(change(features.tokens), mask, None, tuple(change(layer) for layer in features.layers), embedded)


def padded(features: Features, by: int) -> Features:
    return changed(features, lambda x: F.pad(x, (0, 0, 0, by), value=50.0), F.pad(features.mask, (0, by)))


def each(joint: Joint, real: Features | None = None) -> dict[str, Tensor]:
    """Return the outputs that are there; with `real` the text at its real tokens alone, and no padded vision."""
    found = {"pooled": joint.pooled}
    found |= {name: None if f is None else f.tokens for name, f in (("vision", joint.vision), ("text", joint.text))}
    there = {name: tensor for name, tensor in found.items() if tensor is not None}
    if real is not None and "text" in there:
        there["text"] = there["text"][:, : real.mask.shape[1]][real.mask]
    return there


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5)
