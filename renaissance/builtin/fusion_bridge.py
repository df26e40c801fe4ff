"""The `bridge` head: co-attention layers, each linked to a block of each tower.

Letters: P pairs, N tokens of the vision stream, L of the text stream, W the fusion's width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from renaissance.api import Features, Joint, Output, TowerFacts
from renaissance.builtin.fusion import CoAttentionLayer, fuse_last
from renaissance.builtin.fusion_entries import BridgeOptions
from renaissance.builtin.fusion_streams import CrossLayer, both_streams
from renaissance.toolkit.attention import initialise, norm_before
from renaissance.toolkit.pooling import Pooler
from renaissance.toolkit.recompute import run


class Links(nn.Module):
    """How one tower's blocks enter its stream: LayerNorm(projected block output + stream), each with its own norm.

    normed: block outputs pass a LayerNorm, one for all, before they are projected.
    """

    def __init__(self, tower_width: int, options: BridgeOptions, *, normed: bool) -> None:
        super().__init__()
        width, eps, count = options.width, options.norm_eps, options.layers
        self.shared = options.shared_projection
        self.before = nn.LayerNorm(tower_width, eps=eps) if normed else nn.Identity()
        self.projections = nn.ModuleList(nn.Linear(tower_width, width) for _ in range(1 if self.shared else count))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=eps) for _ in range(count))

    def forward(self, index: int, block_output: Tensor, stream: Tensor) -> Tensor:
        """Return the stream [P, N, W] linked with the output [P, N, D] of the tower block that belongs to `index`."""
        projected = self.projections[0 if self.shared else index](self.before(block_output))
        return self.norms[index](projected + stream)  # type: ignore[no-any-return]  # nn.Module.__call__


class BridgeFusion(nn.Module):
    """Co-attention layers over the top blocks of both towers; the first layer's streams are the links alone.

    The projections' biases tell the two modalities apart.
    """

    def __init__(self, options: BridgeOptions, vision: TowerFacts, text: TowerFacts) -> None:
        super().__init__()
        self.width = options.width
        self.pooled_width = 2 * options.width
        self.recompute = False
        self.vision_links = Links(vision.width, options, normed=options.vision_norm)
        self.text_links = Links(text.width, options, normed=False)
        self.layers = nn.ModuleList(CoAttentionLayer(options) for _ in range(options.layers))
        self.vision_norm = norm_before(options.width, eps=options.norm_eps, norm=options.norm)
        self.text_norm = norm_before(options.width, eps=options.norm_eps, norm=options.norm)
        self.vision_pooler = Pooler(options.width, class_token=vision.class_token)
        self.text_pooler = Pooler(options.width, class_token=text.class_token)
        initialise(self)

    def forward(self, vision: Features, text: Features, outputs: frozenset[Output]) -> Joint:
        """Fuse pair i of the block outputs `layers` [P, N, Dv] and [P, L, Dt]; return `outputs`, pooled [P, 2 W]."""
        masks = (vision.mask, text.mask)
        blocks = list(zip(vision.layers, text.layers, strict=True))[-len(self.layers) :]
        *inner, last = cast("list[CrossLayer]", list(self.layers))
        v = t = torch.zeros((), dtype=vision.tokens.dtype, device=vision.tokens.device)
        for index, layer in enumerate(inner):
            v, t = self._linked(index, blocks[index], v, t)
            v, t = run(both_streams, self.recompute, layer, v, t, *masks)
        v, t = self._linked(len(inner), blocks[-1], v, t)
        norms, poolers = (self.vision_norm, self.text_norm), (self.vision_pooler, self.text_pooler)
        streams = Features(v, vision.mask), Features(t, text.mask)
        return fuse_last(last, streams, norms, poolers, outputs, self.recompute)

    def _linked(self, index: int, blocks: tuple[Tensor, Tensor], vision: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        return self.vision_links(index, blocks[0], vision), self.text_links(index, blocks[1], text)


def bridge(options: BridgeOptions, *, vision: TowerFacts, text: TowerFacts) -> BridgeFusion:
    """Build the `bridge` head."""
    return BridgeFusion(options, vision, text)
