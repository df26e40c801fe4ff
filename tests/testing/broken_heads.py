"""A sound fusion head, and what is wrong with those that the kit must reject."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from renaissance.api import Features, FusionHeadEntry, Joint, Options, TowerFacts
from renaissance.toolkit.pooling import masked_mean
from tests.testing.broken_modules import FAULTS as MODULE_FAULTS
from tests.testing.broken_modules import leftover

WIDTH = 32


class HeadOptions(Options):
    """Options of the head."""

    fault: str = Field("", description="What is wrong with it.")


class Head(nn.Module):
    """Two projected streams and the product of their means, or one fault."""

    def __init__(self, fault: str, vision: TowerFacts, text: TowerFacts) -> None:
        super().__init__()
        self.fault, self.width = fault, WIDTH
        self.pooled_width = WIDTH + (fault == "widths")
        self.vision_projection = nn.Linear(vision.width, WIDTH)
        self.text_projection = nn.Linear(text.width, WIDTH)
        if fault == "gradients":
            leftover(self)
        if fault == "round trip":
            self.register_buffer("scale", torch.rand(WIDTH), persistent=False)

    def forward(self, vision: Features, text: Features, outputs: frozenset[str]) -> Joint:
        v, t = self.vision_projection(vision.tokens), self.text_projection(text.tokens)
        v, t = self.spoiled(v), t.detach() if self.fault == "streams" else t
        asked = {"vision", "text", "pooled"} if self.fault == "asked" else outputs
        seen = v.mean(1) if self.fault == "padding" else masked_mean(v, vision.mask)
        said = 1.0 if self.fault == "pools the image alone" else masked_mean(t, text.mask)
        return Joint(
            Features(v, vision.mask) if "vision" in asked else None,
            Features(t, text.mask) if "text" in asked else None,
            seen * said if "pooled" in asked else None,
        )

    def spoiled(self, v: Tensor) -> Tensor:
        match self.fault:
            case "batch":
                return v - v.mean(0)
            case "eval":
                return F.dropout(v, 0.5)
            case "round trip":
                return v * self.scale
            case "bf16":
                return v @ torch.eye(WIDTH)
        return v


def build(options: HeadOptions, *, vision: TowerFacts, text: TowerFacts) -> Any:
    head = Head(options.fault, vision, text)
    MODULE_FAULTS.get(options.fault, lambda module: None)(head)
    return head


def entry(fault: str = "") -> FusionHeadEntry:
    """Return the entry of a head with one fault."""
    return FusionHeadEntry(
        name="head",
        summary="A head",
        factory="tests.testing.broken_heads:build",
        options=HeadOptions,
        tiny={"fault": fault},
    )


FAULTS = ("widths", "padding", "batch", "asked", "streams", "eval", "gradients", "round trip", "bf16", *MODULE_FAULTS)
