"""Heads that fuse inside blocks of a text encoder: `text-cross-attention` and `q-former`.

Letters: P pairs, N vision tokens, L text tokens, Q learned queries, W the fusion's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.api import Features, Joint, Output, TextBlock, TowerFacts
from renaissance.builtin.fusion_entries import QFormerOptions, TextCrossOptions, refuse_heads
from renaissance.builtin.fusion_streams import Read, how_much, pooler, projection, read_of
from renaissance.toolkit.attention import AttentionLayer, Block, FeedForwardLayer, initialise, norm_before
from renaissance.toolkit.dropout import Dropout
from renaissance.toolkit.recompute import run


class TextCrossFusion(nn.Module):
    """Text blocks with cross attention to vision between self attention and MLP; the vision stream stays as it is.

    Shared blocks belong to the text tower: they are run here, but are no sub-modules of this head.
    """

    def __init__(self, options: TextCrossOptions, vision: TowerFacts, text: TowerFacts) -> None:
        super().__init__()
        self.width = self.pooled_width = fusion_width(options, text)
        self.recompute = False
        self.embedded = options.text_blocks == "shared"
        self.projection = projection(text.width, self.width)
        self.blocks: Sequence[TextBlock] = own_blocks(options, self.width)
        self.cross = nn.ModuleList(cross_attention(options, self.width, vision.width) for _ in range(options.layers))
        self.norm = norm_before(self.width, eps=options.norm_eps, norm=options.norm)
        self.pooler = pooler(options.pooler, self.width, class_token=text.class_token)
        initialise(self)

    def forward(self, vision: Features, text: Features, outputs: frozenset[Output]) -> Joint:
        """Fuse pair i of vision [P, N, Dv] and text [P, L, Dt]; return what `outputs` names, pooled as [P, W]."""
        read = how_much("text", outputs, class_token=self.pooler.class_token)
        if read == "none":
            return Joint()
        tokens = self.projection(text_stream(text, embedded=self.embedded))  # [P, L, W]
        for index in range(len(self.cross)):
            here: Read = read if index == len(self.cross) - 1 else "all"
            tokens = run(self._layer, self.recompute, index, tokens, text.mask, vision, here)
        tokens = self.norm(tokens)
        fused = Features(tokens, text.mask[:, : tokens.shape[1]])
        pooled = self.pooler(tokens, fused.mask) if "pooled" in outputs else None
        return Joint(text=fused if "text" in outputs else None, pooled=pooled)

    def _layer(self, index: int, tokens: Tensor, mask: Tensor, vision: Features, read: Read) -> Tensor:
        block = self.blocks[index]
        attended = read_of(block.attend(tokens, mask), read)
        return block.feed(self.cross[index](attended, vision.tokens, vision.mask))


class QFormer(nn.Module):
    """Learned queries that attend with the text, and every few blocks to vision; they are the fused vision stream.

    Self attention is one for queries and text; the queries have an MLP of their own. Shared blocks belong to the text
    tower: they are run here, but are no sub-modules of this head.
    """

    def __init__(self, options: QFormerOptions, vision: TowerFacts, text: TowerFacts) -> None:
        super().__init__()
        self.width = self.pooled_width = width = fusion_width(options, text)
        dropout, eps, hidden = options.dropout, options.norm_eps, int(width * options.mlp_ratio)
        self.recompute = False
        self.embedded = options.text_blocks == "shared"
        self.cross_every = options.cross_every
        self.queries = nn.Parameter(torch.empty(1, options.queries, width))
        self.query_norm = nn.LayerNorm(width, eps=eps)
        self.projection = projection(text.width, width)
        self.text_norm = nn.LayerNorm(width, eps=eps) if options.text_blocks is None else nn.Identity()
        self.dropout = Dropout(dropout)
        self.blocks: Sequence[TextBlock] = own_blocks(options, width)
        self.cross = nn.ModuleList(
            cross_attention(options, width, vision.width) for _ in range(0, options.layers, options.cross_every)
        )
        self.query_mlps = nn.ModuleList(
            FeedForwardLayer(width, hidden, dropout, eps=eps, norm=options.norm) for _ in range(options.layers)
        )
        self.norm = norm_before(width, eps=eps, norm=options.norm)
        self.pooler = pooler(options.pooler, width, class_token=False)
        nn.init.normal_(self.queries, std=0.02)
        initialise(self)

    def forward(self, vision: Features, text: Features, outputs: frozenset[Output]) -> Joint:
        """Fuse pair i of vision [P, N, Dv] and text [P, L, Dt]; return what `outputs` names, pooled as [P, W]."""
        queries = self.dropout(self.query_norm(self.queries)).expand(vision.tokens.shape[0], -1, -1)  # [P, Q, W]
        tokens = self.dropout(self.text_norm(self.projection(text_stream(text, embedded=self.embedded))))
        mask = F.pad(text.mask, (queries.shape[1], 0), value=True)  # [P, Q + L]
        last = len(self.query_mlps) - 1
        for index in range(last):
            queries, tokens = run(self._layer, self.recompute, index, queries, tokens, mask, vision)
        attended, attended_text = run(self._attend, self.recompute, last, queries, tokens, mask)
        fused_text = None
        if "text" in outputs:
            fused_text = Features(self.norm(self.blocks[last].feed(attended_text)), text.mask)
        if not outputs & {"vision", "pooled"}:
            return Joint(text=fused_text)
        queries = self.norm(run(self._feed, self.recompute, last, attended, vision))
        fused = Features(queries, mask[:, : queries.shape[1]])
        pooled = self.pooler(queries, fused.mask) if "pooled" in outputs else None
        return Joint(fused if "vision" in outputs else None, fused_text, pooled)

    def _layer(
        self, index: int, queries: Tensor, tokens: Tensor, mask: Tensor, vision: Features
    ) -> tuple[Tensor, Tensor]:
        queries, tokens = self._attend(index, queries, tokens, mask)
        return self._feed(index, queries, vision), self.blocks[index].feed(tokens)

    def _attend(self, index: int, queries: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        attended = self.blocks[index].attend(torch.cat((queries, tokens), dim=1), mask)  # [P, Q + L, W]
        return attended[:, : queries.shape[1]], attended[:, queries.shape[1] :]

    def _feed(self, index: int, queries: Tensor, vision: Features) -> Tensor:
        if index % self.cross_every == 0:
            queries = self.cross[index // self.cross_every](queries, vision.tokens, vision.mask)
        return self.query_mlps[index](queries)  # type: ignore[no-any-return]  # nn.Module.__call__


def fusion_width(options: TextCrossOptions, text: TowerFacts) -> int:
    """Return the width of the fused text stream, which is the text tower's unless the options say else.

    Raises:
        SpecError: the heads do not divide it.
    """
    width = options.width or text.width
    refuse_heads(width, options.heads)
    return width


def cross_attention(options: TextCrossOptions, width: int, vision_width: int) -> AttentionLayer:
    """Return attention of a stream [P, L, W] to vision tokens [P, N, Dv]."""
    return AttentionLayer(
        width,
        options.heads,
        options.dropout,
        context_width=vision_width,
        eps=options.norm_eps,
        norm=options.norm,
        crossing=True,
    )


def own_blocks(options: TextCrossOptions, width: int) -> Sequence[TextBlock]:
    """Return new text blocks, or none where the options say that blocks of the text tower are given."""
    if options.text_blocks is not None:
        return ()
    hidden = int(width * options.mlp_ratio)
    blocks = nn.ModuleList(
        Block(width, options.heads, hidden, options.dropout, eps=options.norm_eps, norm=options.norm)
        for _ in range(options.layers)
    )
    return cast("Sequence[TextBlock]", blocks)


def text_stream(text: Features, *, embedded: bool) -> Tensor:
    """Return the text tokens [P, L, D] as they left the tower, or as they are before its first block."""
    if not embedded:
        return text.tokens
    assert text.embedded is not None, "a head that shares text blocks needs the embedded text"
    return text.embedded


def text_cross_attention(
    options: TextCrossOptions, *, vision: TowerFacts, text: TowerFacts, text_blocks: Sequence[TextBlock] = ()
) -> TextCrossFusion:
    """Build the `text-cross-attention` head; `text_blocks` are there exactly if the options name them."""
    head = TextCrossFusion(options, vision, text)
    _take_blocks(head, options, text_blocks)
    return head


def q_former(
    options: QFormerOptions, *, vision: TowerFacts, text: TowerFacts, text_blocks: Sequence[TextBlock] = ()
) -> QFormer:
    """Build the `q-former` head; `text_blocks` are there exactly if the options name them."""
    head = QFormer(options, vision, text)
    _take_blocks(head, options, text_blocks)
    return head


def _take_blocks(head: TextCrossFusion | QFormer, options: TextCrossOptions, given: Sequence[TextBlock]) -> None:
    """Give a head the blocks of a text tower, after its own parts are initialised: these keep their weights."""
    expected = 0 if options.text_blocks is None else options.layers
    assert len(given) == expected, f"{expected} text blocks are needed, not {len(given)}"
    if options.text_blocks == "inherited":
        head.blocks = cast("Sequence[TextBlock]", nn.ModuleList(cast("Sequence[nn.Module]", given)))
    elif options.text_blocks == "shared":
        head.blocks = tuple(given)  # no ModuleList: the parameters are the tower's, and are counted and saved there
