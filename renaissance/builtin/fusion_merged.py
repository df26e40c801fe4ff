"""The `merged-attention` head: transformer blocks over one stream of both modalities.

Letters: P pairs, N vision tokens, L text tokens, S tokens of the merged stream, W the fusion's width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.api import Features, Joint, Output, TowerFacts
from renaissance.builtin.fusion_entries import MergedOptions
from renaissance.builtin.fusion_streams import joint
from renaissance.toolkit.attention import Block, initialise, norm_before
from renaissance.toolkit.pooling import Pooler
from renaissance.toolkit.recompute import run


class MergedFusion(nn.Module):
    """Blocks over [class token?; vision; text]; with a class token of its own that one alone is pooled.

    The projections' biases tell the two modalities apart. The last block computes only the tokens that are asked for.
    """

    def __init__(self, options: MergedOptions, vision: TowerFacts, text: TowerFacts) -> None:
        super().__init__()
        width, hidden, eps = options.width, int(options.width * options.mlp_ratio), options.norm_eps
        self.width = width
        self.pooled_width = width if options.class_token else 2 * width
        self.recompute = False
        self.vision_projection = nn.Linear(vision.width, width)
        self.text_projection = nn.Linear(text.width, width)
        self.extra = int(options.class_token)  # tokens of its own before the two streams
        self.class_token = nn.Parameter(torch.zeros(1, self.extra, width)) if options.class_token else None
        self.layers = nn.ModuleList(
            Block(width, options.heads, hidden, options.dropout, eps=eps, norm=options.norm)
            for _ in range(options.layers)
        )
        self.norm = norm_before(width, eps=eps, norm=options.norm)
        if options.class_token:
            self.pooler = Pooler(width, class_token=True)
        else:
            self.vision_pooler = Pooler(width, class_token=vision.class_token)
            self.text_pooler = Pooler(width, class_token=text.class_token)
        initialise(self)

    def forward(self, vision: Features, text: Features, outputs: frozenset[Output]) -> Joint:
        """Fuse pair i of vision [P, N, Dv] and text [P, L, Dt]; return what `outputs` names, pooled [P, W or 2 W]."""
        if not outputs:
            return Joint()
        tokens, mask = self._merge(vision, text)  # [P, S, W]
        spans = self._spans(vision.mask.shape[1], text.mask.shape[1])
        wanted = slice(min(spans[o].start for o in outputs), max(spans[o].stop for o in outputs))
        *inner, last = self.layers
        for layer in inner:
            tokens = run(layer, self.recompute, tokens, mask)
        tokens = self.norm(run(last, self.recompute, tokens, mask, wanted))
        return self._cut(tokens, mask, spans, wanted.start, outputs)

    def _merge(self, vision: Features, text: Features) -> tuple[Tensor, Tensor]:
        tokens = [self.vision_projection(vision.tokens), self.text_projection(text.tokens)]
        if self.class_token is not None:
            tokens.insert(0, self.class_token.expand(vision.tokens.shape[0], -1, -1))
        mask = torch.cat((vision.mask, text.mask), dim=1)
        return torch.cat(tokens, dim=1), F.pad(mask, (self.extra, 0), value=True)

    def _spans(self, vision: int, text: int) -> dict[Output, slice]:
        """Return where each output lies in the merged stream; pooled: what its pooler reads."""
        middle = self.extra + vision
        pooled = slice(0, self.extra or middle + text)
        return {"pooled": pooled, "vision": slice(self.extra, middle), "text": slice(middle, middle + text)}

    def _cut(
        self, tokens: Tensor, mask: Tensor, spans: dict[Output, slice], start: int, outputs: frozenset[Output]
    ) -> Joint:
        """Take the streams out of tokens [P, S', W], which begin at `start` of the merged stream."""

        def stream(name: Output) -> Features:
            span = spans[name]
            return Features(tokens[:, span.start - start : span.stop - start], mask[:, span])

        if self.class_token is None and "pooled" in outputs:
            return joint(stream("vision"), stream("text"), (self.vision_pooler, self.text_pooler), outputs)
        return Joint(
            stream("vision") if "vision" in outputs else None,
            stream("text") if "text" in outputs else None,
            self.pooler(tokens, mask) if "pooled" in outputs else None,
        )


def merged_attention(options: MergedOptions, *, vision: TowerFacts, text: TowerFacts) -> MergedFusion:
    """Build the `merged-attention` head."""
    return MergedFusion(options, vision, text)
