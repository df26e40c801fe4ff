"""Sound backbones of both modalities, and what is wrong with those that the kit must reject."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from renaissance.api import BackboneEntry, Capabilities, Features, Modality, Options, TextInput, VisionInput
from renaissance.builtin.timm_entries import TimmOptions
from renaissance.builtin.timm_vision import build as build_vision
from renaissance.builtin.transformers_options import LibraryTextOptions
from renaissance.builtin.transformers_text import build as build_text
from tests.testing.broken_modules import FAULTS as MODULE_FAULTS
from tests.testing.broken_modules import leftover

VISION = TimmOptions(
    model="vit_tiny_patch16_224", image_size=64, overrides={"embed_dim": 32, "depth": 2, "num_heads": 2}
)
TEXT = LibraryTextOptions(
    model="bert", layers=2, width=32, heads=2, mlp_width=64, max_tokens=24, tokenizer="renaissance"
)
TURNS = count()


class BackboneOptions(Options):
    """Options of the backbone."""

    fault: str = Field("", description="What is wrong with it.")


def _tokens(change: Callable[[Tensor], Tensor]) -> Callable[[Any], None]:
    """Return the fault of other tokens."""

    def hook(_: nn.Module, __: Any, features: Features) -> Features:
        return replace(features, tokens=change(features.tokens))

    return lambda backbone: backbone.register_forward_hook(hook)


def _attends_to_padding(backbone: Any) -> None:
    def all_real(_: nn.Module, args: tuple[TextInput, ...]) -> tuple[TextInput, ...]:
        return (replace(args[0], mask=torch.ones_like(args[0].mask)), *args[1:])

    def padded(_: nn.Module, args: tuple[TextInput, ...], features: Features) -> Features:
        return replace(features, mask=args[0].token_ids != 0)

    backbone.register_forward_pre_hook(all_real)
    backbone.register_forward_hook(padded)


def _transposed(tokens: Tensor) -> Tensor:
    grid = tokens[:, 1:].unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)
    return torch.cat([tokens[:, :1], grid], dim=1)


def _scaled_by_chance(backbone: Any) -> None:
    scale = torch.rand(32)
    _tokens(lambda tokens: tokens * scale)(backbone)


class FloatPixels:
    """A processor that gives normalised pixels in place of those that were decoded."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __call__(self, images: Any) -> VisionInput:
        return VisionInput(self.inner(images).pixels.float() / 255)


def _gives_floats(backbone: Any) -> None:
    backbone.processor = FloatPixels(backbone.processor)


def _forgets_order(backbone: Any) -> None:
    """Make each token what its own word is, wherever it stands."""

    def hook(_: nn.Module, args: tuple[TextInput, ...], features: Features) -> Features:
        words = backbone.model.embeddings.word_embeddings(args[0].token_ids)
        return replace(features, tokens=words, pooled=None)

    backbone.register_forward_hook(hook)


VISION_FAULTS: dict[str, Callable[[Any], None]] = {
    "grid order": _tokens(_transposed),
    "batch": _tokens(lambda tokens: tokens - 0.1 * tokens.mean(dim=0)),
    "eval": _tokens(lambda tokens: tokens + 1e-6 * torch.rand_like(tokens)),
    "layers": _tokens(lambda tokens: tokens * 1.000001),
    "bf16": _tokens(lambda tokens: tokens if tokens.dtype == torch.float32 else tokens.flip(-1)),
    "gradients": leftover,
    "round trip": _scaled_by_chance,
    "processor": _gives_floats,
    "width and depth": lambda backbone: None,  # what is declared is wrong
    "describing": lambda backbone: None,
    **MODULE_FAULTS,
}
TEXT_FAULTS: dict[str, Callable[[Any], None]] = {"padding": _attends_to_padding, "order": _forgets_order}


def vision(options: BackboneOptions, *, weights: Any, saved: Any) -> Any:
    backbone = build_vision(VISION, weights=weights, saved=saved)
    VISION_FAULTS.get(options.fault, lambda module: None)(backbone)
    return backbone


def text(options: BackboneOptions, *, weights: Any, saved: Any) -> Any:
    backbone = build_text(TEXT, weights=weights, saved=saved)
    TEXT_FAULTS.get(options.fault, lambda module: None)(backbone)
    return backbone


def describe(options: BackboneOptions) -> Capabilities:
    match options.fault:
        case "describing":
            return Capabilities(max_tokens=next(TURNS))
        case "width and depth":
            return Capabilities(depth=3)
    return Capabilities()


def entry(fault: str = "", modality: Modality = "vision") -> BackboneEntry:
    """Return the entry of a backbone with one fault."""
    return BackboneEntry(
        name="backbone",
        summary="A backbone",
        factory=f"tests.testing.broken_backbones:{modality}",
        options=BackboneOptions,
        tiny={"fault": fault},
        modality=modality,
        describe=describe,
    )
