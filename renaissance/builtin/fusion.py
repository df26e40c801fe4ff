"""Built-in fusion heads of two streams or none: `lxmert`, `co-attention`, `concat` and `dual`.

Letters: P pairs, N tokens of the vision stream, L of the text stream, W the fusion's width.
"""

from __future__ import annotations

from typing import TypedDict, cast

from torch import Tensor, nn

from renaissance.api import Features, Joint, Modality, Output, TowerFacts
from renaissance.builtin.fusion_entries import ConcatOptions, CrossOptions, DualOptions
from renaissance.builtin.fusion_streams import CrossLayer, Read, both_streams, features, how_much, joint, read_of
from renaissance.toolkit.attention import AttentionLayer, FeedForwardLayer, Norm, initialise, norm_before
from renaissance.toolkit.pooling import Pooler
from renaissance.toolkit.recompute import run


class Norms(TypedDict):
    """How the sub-layers of a layer are normed."""

    eps: float
    norm: Norm


def norms_of(options: CrossOptions) -> Norms:
    """Return how the sub-layers of a layer are normed."""
    return Norms(eps=options.norm_eps, norm=options.norm)


class LxmertLayer(nn.Module):
    """One cross-modality layer: shared cross attention both ways, then self attention and MLP for each stream."""

    def __init__(self, options: CrossOptions) -> None:
        super().__init__()
        width, heads, dropout = options.width, options.heads, options.dropout
        hidden, norms = int(width * options.mlp_ratio), norms_of(options)
        self.cross = AttentionLayer(width, heads, dropout, crossing=True, **norms)
        self.vision_self = AttentionLayer(width, heads, dropout, **norms)
        self.text_self = AttentionLayer(width, heads, dropout, **norms)
        self.vision_mlp = FeedForwardLayer(width, hidden, dropout, **norms)
        self.text_mlp = FeedForwardLayer(width, hidden, dropout, **norms)

    def vision_stream(self, vision: Tensor, text: Tensor, vision_mask: Tensor, text_mask: Tensor, read: Read) -> Tensor:
        """Return the next vision stream [P, N, W], or its first token [P, 1, W]."""
        crossed = self.cross(vision, text, text_mask)
        return self.vision_mlp(self.vision_self(read_of(crossed, read), crossed, vision_mask))  # type: ignore[no-any-return]

    def text_stream(self, vision: Tensor, text: Tensor, vision_mask: Tensor, text_mask: Tensor, read: Read) -> Tensor:
        """Return the next text stream [P, L, W], or its first token [P, 1, W]."""
        crossed = self.cross(text, vision, vision_mask)
        return self.text_mlp(self.text_self(read_of(crossed, read), crossed, text_mask))  # type: ignore[no-any-return]


class CoAttentionLayer(nn.Module):
    """One co-attention layer: for each stream self attention, cross attention over the other, and MLP."""

    def __init__(self, options: CrossOptions) -> None:
        super().__init__()
        width, heads, dropout = options.width, options.heads, options.dropout
        hidden, norms = int(width * options.mlp_ratio), norms_of(options)
        self.vision_self = AttentionLayer(width, heads, dropout, **norms)
        self.vision_cross = AttentionLayer(width, heads, dropout, crossing=True, **norms)
        self.vision_mlp = FeedForwardLayer(width, hidden, dropout, **norms)
        self.text_self = AttentionLayer(width, heads, dropout, **norms)
        self.text_cross = AttentionLayer(width, heads, dropout, crossing=True, **norms)
        self.text_mlp = FeedForwardLayer(width, hidden, dropout, **norms)

    def vision_stream(self, vision: Tensor, text: Tensor, vision_mask: Tensor, text_mask: Tensor, read: Read) -> Tensor:
        """Return the next vision stream [P, N, W], or its first token [P, 1, W]."""
        tokens = self.vision_self(read_of(vision, read), vision, vision_mask)
        return self.vision_mlp(self.vision_cross(tokens, text, text_mask))  # type: ignore[no-any-return]

    def text_stream(self, vision: Tensor, text: Tensor, vision_mask: Tensor, text_mask: Tensor, read: Read) -> Tensor:
        """Return the next text stream [P, L, W], or its first token [P, 1, W]."""
        tokens = self.text_self(read_of(text, read), text, text_mask)
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
        self.recompute = False
        self.vision_projection = nn.Linear(vision.width, options.width)
        self.text_projection = nn.Linear(text.width, options.width)
        self.layers = nn.ModuleList(layers)
        self.vision_norm = norm_before(options.width, eps=options.norm_eps, norm=options.norm)
        self.text_norm = norm_before(options.width, eps=options.norm_eps, norm=options.norm)
        self.vision_pooler = Pooler(options.width, class_token=vision.class_token)
        self.text_pooler = Pooler(options.width, class_token=text.class_token)
        initialise(self)

    def forward(self, vision: Features, text: Features, outputs: frozenset[Output]) -> Joint:
        """Fuse pair i of vision [P, N, Dv] and text [P, L, Dt]; return what `outputs` names, pooled as [P, 2 W]."""
        v, t = self.vision_projection(vision.tokens), self.text_projection(text.tokens)
        masks = (vision.mask, text.mask)
        *inner, last = cast("list[CrossLayer]", list(self.layers))
        for layer in inner:
            v, t = run(both_streams, self.recompute, layer, v, t, *masks)
        norms, poolers = (self.vision_norm, self.text_norm), (self.vision_pooler, self.text_pooler)
        streams = Features(v, vision.mask), Features(t, text.mask)
        return fuse_last(last, streams, norms, poolers, outputs, self.recompute)


def fuse_last(
    layer: CrossLayer,
    streams: tuple[Features, Features],
    norms: tuple[nn.Module, nn.Module],
    poolers: tuple[Pooler, Pooler],
    outputs: frozenset[Output],
    recompute: bool,
) -> Joint:
    """Run the last layer on two streams [P, N, W] and [P, L, W], as far as `outputs` need it; return these, normed."""
    vision, text = streams
    inputs = (vision.tokens, text.tokens, vision.mask, text.mask)
    vision_read = how_much("vision", outputs, class_token=poolers[0].class_token)
    text_read = how_much("text", outputs, class_token=poolers[1].class_token)
    v = None if vision_read == "none" else norms[0](run(layer.vision_stream, recompute, *inputs, vision_read))
    t = None if text_read == "none" else norms[1](run(layer.text_stream, recompute, *inputs, text_read))
    return joint(features(v, vision.mask), features(t, text.mask), poolers, outputs)


class Concat(nn.Module):
    """Both streams, projected to one width and else as they are; pooled: both poolers' vectors, concatenated."""

    def __init__(self, options: ConcatOptions, vision: TowerFacts, text: TowerFacts) -> None:
        super().__init__()
        self.width = options.width
        self.pooled_width = 2 * options.width
        self.vision_projection = nn.Linear(vision.width, options.width)
        self.text_projection = nn.Linear(text.width, options.width)
        self.vision_pooler = Pooler(options.width, class_token=vision.class_token)
        self.text_pooler = Pooler(options.width, class_token=text.class_token)
        initialise(self)

    def forward(self, vision: Features, text: Features, outputs: frozenset[Output]) -> Joint:
        """Project pair i of vision [P, N, Dv] and text [P, L, Dt]; return what `outputs` names, pooled as [P, 2 W]."""
        vision_read = how_much("vision", outputs, class_token=self.vision_pooler.class_token)
        text_read = how_much("text", outputs, class_token=self.text_pooler.class_token)
        v = None if vision_read == "none" else self.vision_projection(read_of(vision.tokens, vision_read))
        t = None if text_read == "none" else self.text_projection(read_of(text.tokens, text_read))
        poolers = (self.vision_pooler, self.text_pooler)
        return joint(features(v, vision.mask), features(t, text.mask), poolers, outputs)


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


def lxmert(options: CrossOptions, *, vision: TowerFacts, text: TowerFacts) -> CrossFusion:
    """Build the `lxmert` head."""
    return CrossFusion([LxmertLayer(options) for _ in range(options.layers)], options, vision, text)


def co_attention(options: CrossOptions, *, vision: TowerFacts, text: TowerFacts) -> CrossFusion:
    """Build the `co-attention` head."""
    return CrossFusion([CoAttentionLayer(options) for _ in range(options.layers)], options, vision, text)


def concat(options: ConcatOptions, *, vision: TowerFacts, text: TowerFacts) -> Concat:
    """Build the `concat` head."""
    return Concat(options, vision, text)


def dual(options: DualOptions, *, vision: TowerFacts, text: TowerFacts) -> Dual:
    """Build the `dual` head."""
    return Dual(options, vision, text)
