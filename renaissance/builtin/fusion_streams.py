"""What heads with two streams share: how layers run, how much the last one computes, and how a Joint comes of it.

Letters: P pairs, N tokens of the vision stream, L of the text stream, W the fusion's width.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from renaissance.api import Features, Joint, Output
from renaissance.toolkit.pooling import Pooler, masked_mean

# How much of a stream the last layer must give: every token, the first alone, or nothing.
Read = Literal["all", "first", "none"]


class CrossLayer(Protocol):
    """A layer that gives the next vision stream and the next text stream."""

    def vision_stream(self, vision: Tensor, text: Tensor, vision_mask: Tensor, text_mask: Tensor, read: Read) -> Tensor:
        """Return the next vision stream [P, N, W], or its first token [P, 1, W]."""
        ...

    def text_stream(self, vision: Tensor, text: Tensor, vision_mask: Tensor, text_mask: Tensor, read: Read) -> Tensor:
        """Return the next text stream [P, L, W], or its first token [P, 1, W]."""
        ...


class BareVector(nn.Module):
    """The first token as it is, where it stands for the whole input, or else the mean: a pooler without weights."""

    def __init__(self, *, class_token: bool) -> None:
        super().__init__()
        self.class_token = class_token

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Pool tokens [B, N, W] with their mask bool [B, N] into [B, W]."""
        return tokens[:, 0] if self.class_token else masked_mean(tokens, mask)


def pooler(kind: Literal["tanh", "none"], width: int, *, class_token: bool) -> Pooler | BareVector:
    """Return the pooler that an option names."""
    return Pooler(width, class_token=class_token) if kind == "tanh" else BareVector(class_token=class_token)


def projection(tower_width: int, width: int) -> nn.Module:
    """Return a linear map where the widths differ, or else the identity."""
    return nn.Identity() if tower_width == width else nn.Linear(tower_width, width)


def how_much(stream: Output, outputs: frozenset[Output], *, class_token: bool) -> Read:
    """Return how much of a stream whose pooler reads its class token, or else all, these outputs need."""
    if stream in outputs or ("pooled" in outputs and not class_token):
        return "all"
    return "first" if "pooled" in outputs else "none"


def read_of(tokens: Tensor, read: Read) -> Tensor:
    """Return all tokens [P, N, W], or the first [P, 1, W]."""
    return tokens if read == "all" else tokens[:, :1]


def both_streams(
    layer: CrossLayer, vision: Tensor, text: Tensor, vision_mask: Tensor, text_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the next vision stream [P, N, W] and the next text stream [P, L, W]."""
    inputs = (vision, text, vision_mask, text_mask)
    return layer.vision_stream(*inputs, "all"), layer.text_stream(*inputs, "all")


def features(tokens: Tensor | None, mask: Tensor) -> Features | None:
    """Return tokens [P, N, W], of which there may be fewer than the mask has, with their mask."""
    return None if tokens is None else Features(tokens, mask[:, : tokens.shape[1]])


def joint(
    vision: Features | None, text: Features | None, poolers: tuple[nn.Module, nn.Module], outputs: frozenset[Output]
) -> Joint:
    """Return what `outputs` names of two fused streams; pooled [P, 2 W] is both poolers' vectors, vision first."""
    pooled = None
    if "pooled" in outputs and vision is not None and text is not None:
        parts = poolers[0](vision.tokens, vision.mask), poolers[1](text.tokens, text.mask)
        pooled = torch.cat(parts, dim=-1)  # [P, 2 W]
    return Joint(vision if "vision" in outputs else None, text if "text" in outputs else None, pooled)
