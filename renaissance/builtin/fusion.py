"""The built-in fusion heads: `lxmert`, `co-attention` and `dual`.

Letters: P pairs, N tokens of the vision stream, L of the text stream, W the fusion's width.
"""

from __future__ import annotations

from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn

from renaissance.api import Features, Joint, Modality, Output, TowerFacts
from renaissance.builtin.fusion_entries import CrossOptions, DualOptions
from renaissance.toolkit.attention import AttentionLayer, FeedForwardLayer, initialise
from renaissance.toolkit.pooling import Pooler

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


class LxmertLayer(nn.Module):
    """One cross-modality layer: shared cross attention both ways, then self attention and MLP for each stream."""

    def __init__(self, options: CrossOptions) -> None:
        super().__init__()
        width, heads, dropout = options.width, options.heads, options.dropout
        hidden = int(width * options.mlp_ratio)
        self.cross = AttentionLayer(width, heads, dropout)
        self.vision_self = AttentionLayer(width, heads, dropout)
        self.text_self = AttentionLayer(width, heads, dropout)
        self.vision_mlp = FeedForwardLayer(width, hidden, dropout)
        self.text_mlp = FeedForwardLayer(width, hidden, dropout)

    def vision_stream(self, vision: Tensor, text: Tensor, vision_mask: Tensor, text_mask: Tensor, read: Read) -> Tensor:
        """Return the next vision stream [P, N, W], or its first token [P, 1, W]."""
        crossed = self.cross(vision, text, text_mask)
        return self.vision_mlp(self.vision_self(_queries(crossed, read), crossed, vision_mask))  # type: ignore[no-any-return]

    def text_stream(self, vision: Tensor, text: Tensor, vision_mask: Tensor, text_mask: Tensor, read: Read) -> Tensor:
        """Return the next text stream [P, L, W], or its first token [P, 1, W]."""
        crossed = self.cross(text, vision, vision_mask)
        return self.text_mlp(self.text_self(_queries(crossed, read), crossed, text_mask))  # type: ignore[no-any-return]


class CoAttentionLayer(nn.Module):
    """One co-attention layer: for each stream self attention, cross attention over the other, and MLP."""

    def __init__(self, options: CrossOptions) -> None:
        super().__init__()
        width, heads, dropout = options.width, options.heads, options.dropout
        hidden = int(width * options.mlp_ratio)
        self.vision_self = AttentionLayer(width, heads, dropout)
        self.vision_cross = AttentionLayer(width, heads, dropout)
        self.vision_mlp = FeedForwardLayer(width, hidden, dropout)
        self.text_self = AttentionLayer(width, heads, dropout)
        self.text_cross = AttentionLayer(width, heads, dropout)
        self.text_mlp = FeedForwardLayer(width, hidden, dropout)

    def vision_stream(self, vision: Tensor, text: Tensor, vision_mask: Tensor, text_mask: Tensor, read: Read) -> Tensor:
        """Return the next vision stream [P, N, W], or its first token [P, 1, W]."""
        tokens = self.vision_self(_queries(vision, read), vision, vision_mask)
        return self.vision_mlp(self.vision_cross(tokens, text, text_mask))  # type: ignore[no-any-return]

    def text_stream(self, vision: Tensor, text: Tensor, vision_mask: Tensor, text_mask: Tensor, read: Read) -> Tensor:
        """Return the next text stream [P, L, W], or its first token [P, 1, W]."""
        tokens = self.text_self(_queries(text, read), text, text_mask)
        return self.text_mlp(self.text_cross(tokens, vision, vision_mask))  # type: ignore[no-any-return]


class CrossFusion(nn.Module):
    """Two streams, projected to one width, through layers in which each attends to the other.

    The last layer computes only what is asked of it: a pooled vector needs one token of a stream that has a class
    token, masked-language modelling needs no vision stream.
    """

    def __init__(self, layers: list[nn.Module], options: CrossOptions, vision: TowerFacts, text: TowerFacts) -> None:
        super().__init__()
        self.width = options.width
        self.pooled_width = 2 * options.width
        self.vision_projection = nn.Linear(vision.width, options.width)
        self.text_projection = nn.Linear(text.width, options.width)
        self.layers = nn.ModuleList(layers)
        self.vision_pooler = Pooler(options.width, class_token=vision.class_token)
        self.text_pooler = Pooler(options.width, class_token=text.class_token)
        initialise(self)

    def forward(self, vision: Features, text: Features, outputs: frozenset[Output]) -> Joint:
        """Fuse pair i of vision [P, N, Dv] and text [P, L, Dt]; return what `outputs` names, pooled as [P, 2 W]."""
        v, t = self.vision_projection(vision.tokens), self.text_projection(text.tokens)
        masks = (vision.mask, text.mask)
        *inner, last = cast("list[CrossLayer]", list(self.layers))
        for layer in inner:
            v, t = layer.vision_stream(v, t, *masks, "all"), layer.text_stream(v, t, *masks, "all")
        vision_read, text_read = self._reads(outputs)
        fused_vision = None if vision_read == "none" else last.vision_stream(v, t, *masks, vision_read)
        fused_text = None if text_read == "none" else last.text_stream(v, t, *masks, text_read)
        return self._joint(_features(fused_vision, vision.mask), _features(fused_text, text.mask), outputs)

    def _reads(self, outputs: frozenset[Output]) -> tuple[Read, Read]:
        def read(stream: Output, pooler: Pooler) -> Read:
            if stream in outputs or ("pooled" in outputs and not pooler.class_token):
                return "all"
            return "first" if "pooled" in outputs else "none"

        return read("vision", self.vision_pooler), read("text", self.text_pooler)

    def _joint(self, vision: Features | None, text: Features | None, outputs: frozenset[Output]) -> Joint:
        pooled = None
        if "pooled" in outputs and vision is not None and text is not None:
            parts = self.vision_pooler(vision.tokens, vision.mask), self.text_pooler(text.tokens, text.mask)
            pooled = torch.cat(parts, dim=-1)  # [P, 2 W]
        return Joint(vision if "vision" in outputs else None, text if "text" in outputs else None, pooled)


class Dual(nn.Module):
    """Projections of both towers' pooled vectors to one space [B, W]; it fuses nothing."""

    def __init__(self, options: DualOptions, vision: TowerFacts, text: TowerFacts) -> None:
        super().__init__()
        self.width = options.width
        self.pooled_width = 0
        self.vision_projection = nn.Linear(vision.width, options.width, bias=False)
        self.text_projection = nn.Linear(text.width, options.width, bias=False)
        for projection in (self.vision_projection, self.text_projection):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)

    def project(self, vectors: Tensor, modality: Modality) -> Tensor:
        """Map one modality's vectors [B, D] into the shared space [B, W]."""
        projection = self.vision_projection if modality == "vision" else self.text_projection
        return projection(vectors)  # type: ignore[no-any-return]  # nn.Module.__call__

    def forward(self, vision: Features, text: Features, outputs: frozenset[Output]) -> Joint:
        """Return an empty Joint: `resolve` refuses tasks that ask a dual encoder for a fusion."""
        assert not outputs
        return Joint()


def _features(tokens: Tensor | None, mask: Tensor) -> Features | None:
    return None if tokens is None else Features(tokens, mask[:, : tokens.shape[1]])


def _queries(tokens: Tensor, read: Read) -> Tensor:
    return tokens if read == "all" else tokens[:, :1]


def lxmert(options: CrossOptions, *, vision: TowerFacts, text: TowerFacts) -> CrossFusion:
    """Build the `lxmert` head."""
    return CrossFusion([LxmertLayer(options) for _ in range(options.layers)], options, vision, text)


def co_attention(options: CrossOptions, *, vision: TowerFacts, text: TowerFacts) -> CrossFusion:
    """Build the `co-attention` head."""
    return CrossFusion([CoAttentionLayer(options) for _ in range(options.layers)], options, vision, text)


def dual(options: DualOptions, *, vision: TowerFacts, text: TowerFacts) -> Dual:
    """Build the `dual` head."""
    return Dual(options, vision, text)
