"""The fusion head: image tokens are resampled to a few latents, then the text reads these.

Letters: P pairs, N image tokens, M latents, L text tokens, W the head's width.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.api import Features, Joint, Output, TowerFacts
from renaissance.toolkit.attention import AttentionLayer, Block, initialise
from renaissance.toolkit.pooling import Pooler
from renaissance.toolkit.recompute import run
from renaissance_plugin_resampler.entries import ResamplerOptions
from renaissance_plugin_resampler.resampler import PerceiverResampler


class CrossLayer(nn.Module):
    """Self attention of the text, cross attention to the latents, MLP; the latents stay as they are."""

    def __init__(self, options: ResamplerOptions) -> None:
        super().__init__()
        width, heads, dropout, eps = options.width, options.heads, options.dropout, options.norm_eps
        self.block = _block(options)
        self.cross = AttentionLayer(width, heads, dropout, eps=eps, norm="pre", crossing=True)

    def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents [P, M, W] and the next text [P, L, W]; mask bool [P, L]."""
        return latents, self.last(latents, text, mask, text.shape[1])

    def last(self, latents: Tensor, text: Tensor, mask: Tensor, count: int) -> Tensor:
        """Return the first `count` tokens of the next text [P, count, W]."""
        attended = self.block.attention(text[:, :count], text, mask)
        all_real = mask.new_ones(latents.shape[:2])
        return self.block.feed(self.cross(attended, latents, all_real))


class MergedLayer(nn.Module):
    """One block over latents and text, each attending to all."""

    def __init__(self, options: ResamplerOptions) -> None:
        super().__init__()
        self.block = _block(options)

    def forward(self, latents: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next latents [P, M, W] and the next text [P, L, W]; mask bool [P, L]."""
        sizes = [latents.shape[1], text.shape[1]]
        tokens = self.block(torch.cat((latents, text), dim=1), F.pad(mask, (sizes[0], 0), value=True))
        latents, text = tokens.split(sizes, dim=1)
        return latents, text

    def last(self, latents: Tensor, text: Tensor, mask: Tensor, count: int) -> Tensor:
        """Return the first `count` tokens of the next text [P, count, W]."""
        before = latents.shape[1]
        both, real = torch.cat((latents, text), dim=1), F.pad(mask, (before, 0), value=True)
        return self.block(both, real, slice(before, before + count))  # type: ignore[no-any-return]  # nn.Module.__call__


LAYERS: dict[str, type[CrossLayer] | type[MergedLayer]] = {"cross": CrossLayer, "merged": MergedLayer}


class ResamplerFusion(nn.Module):
    """The resampler, then layers over the text; what is pooled is the fused text.

    The last layer computes the first text token alone where no more is asked for and that token stands for the text.
    """

    def __init__(self, options: ResamplerOptions, vision: TowerFacts, text: TowerFacts) -> None:
        super().__init__()
        self.width = self.pooled_width = options.width
        self.recompute = False
        self.vision_projection = nn.Linear(vision.width, options.width)
        self.resampler = PerceiverResampler(options)
        self.text_projection = nn.Linear(text.width, options.width)
        self.layers = nn.ModuleList(LAYERS[options.join](options) for _ in range(options.layers))
        self.norm = nn.LayerNorm(options.width, eps=options.norm_eps)
        self.pooler = Pooler(options.width, class_token=text.class_token)
        initialise(self)

    def forward(self, vision: Features, text: Features, outputs: frozenset[Output]) -> Joint:
        """Fuse pair i of vision [P, N, Dv] and text [P, L, Dt]; return what `outputs` names, pooled as [P, W]."""
        if not outputs:
            return Joint()
        latents = self.resampler(self.vision_projection(vision.tokens), vision.mask, recompute=self.recompute)
        tokens = self.text_projection(text.tokens)  # [P, L, W]
        *inner, last = cast("list[CrossLayer | MergedLayer]", list(self.layers))
        for layer in inner:
            latents, tokens = run(layer, self.recompute, latents, tokens, text.mask)
        count = 1 if self.pooler.class_token and "text" not in outputs else tokens.shape[1]
        tokens = self.norm(run(last.last, self.recompute, latents, tokens, text.mask, count))
        mask = text.mask[:, :count]
        return Joint(
            text=Features(tokens, mask) if "text" in outputs else None,
            pooled=self.pooler(tokens, mask) if "pooled" in outputs else None,
        )


def build(options: ResamplerOptions, *, vision: TowerFacts, text: TowerFacts) -> ResamplerFusion:
    """Build the `perceiver-resampler` head."""
    return ResamplerFusion(options, vision, text)


def _block(options: ResamplerOptions) -> Block:
    hidden = int(options.width * options.mlp_ratio)
    return Block(options.width, options.heads, hidden, options.dropout, eps=options.norm_eps, norm="pre")
