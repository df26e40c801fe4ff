"""Attention and feed-forward blocks on PyTorch's scaled-dot-product attention.

Letters: B items, N queries, M keys, W width, C the context's width, H heads, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.toolkit.dropout import Dropout
from renaissance.toolkit.recompute import not_keeping_between

EPS = 1e-12
# Where LayerNorm stands: after each sub-layer and its residual (BERT), or before it (ViT).
Norm = Literal["pre", "post"]
ALL = slice(None)


class Attention(nn.Module):
    """Multi-head attention of queries [B, N, W] over a context [B, M, C]; C is W unless `context_width` says else.

    Its mask is bool [B, M] (True: real), or [B, N, M] (True: this query may attend to this key).

    Where the context, or the queries, are few beside the others, products are done in the order that takes the fewest:
    `(x Q) (K y)` is `x (Q K y)`, so the many tokens are multiplied by a few vectors for each head in place of whole
    matrices. For 197 patches and 20 words in 4 heads of 64 that is a third of the work of their cross attention. The
    linear layers are not called then, only read; those of other types (LoRA) are called, as they are in 16 bits and in
    exports.
    """

    def __init__(self, width: int, heads: int, *, context_width: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width or width, width)
        self.value = nn.Linear(context_width or width, width)
        self.output = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Return what each query gathers from the context [B, N, W]."""
        allowed = mask[:, None, None, :] if mask.dim() == 2 else mask[:, None]
        # what is brought elsewhere is rounded once more, which in 16 bits would be felt
        rounded = queries.dtype.itemsize < 4 or torch.is_autocast_enabled(queries.device.type)
        attend = self._plain if rounded else self._cheapest(queries.shape[1], context.shape[1])
        return attend(queries, context, allowed)

    def _cheapest(self, queries: int, keys: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Return what does the fewest multiplications for so many queries and keys of an item."""
        parts = (self.query, self.key, self.value, self.output)
        if torch.compiler.is_exporting() or any(type(part) is not nn.Linear for part in parts):
            return self._plain  # one program is for all lengths, and LoRA adds to what a layer gives
        own, other = self.key.out_features, self.key.in_features
        costs = {self._plain: 2 * own * (queries * own + keys * other + queries * keys)}
        # a vector for each head and each of the few: no more of them than there are others, or they take more memory
        if self.heads * keys <= queries:
            costs[self._over_few] = 2 * keys * own * (other + own + self.heads * queries)
        if self.heads * queries <= keys:
            costs[self._of_few] = 2 * queries * (own * (own + other) + self.heads * keys * other)
        return min(costs, key=costs.__getitem__)

    def _plain(self, queries: Tensor, context: Tensor, allowed: Tensor) -> Tensor:
        q, k, v = (self._heads(part) for part in (self.query(queries), self.key(context), self.value(context)))
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)  # [B, H, N, D]
        return self.output(gathered.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # nn.Module.__call__

    def _over_few(self, queries: Tensor, context: Tensor, allowed: Tensor) -> Tensor:
        """Attend to few keys: they and their values are brought into the space of the queries."""
        keys = self._heads(self.key(context)) * self._scale  # [B, H, M, D]
        offsets = keys @ self.query.bias.view(self.heads, -1, 1)  # [B, H, M, 1]
        folded = _by_head(keys, self._rows_by_head(self.query.weight))  # [B, H, M, W]
        logits = torch.baddbmm(offsets.flatten(1).unsqueeze(1), queries, folded.flatten(1, 2).transpose(1, 2))
        shares = _shares(logits.view(*logits.shape[:2], self.heads, -1).transpose(1, 2), allowed)
        output = self._rows_by_head(self.output.weight.t())  # [H, D, W]
        values = _by_head(self._heads(self.value(context)), output)  # [B, H, M, W]
        seen = torch.bmm(shares.transpose(1, 2).flatten(2), values.flatten(1, 2))  # [B, N, W]
        return seen.masked_fill_(_sees_none(allowed[:, 0]), 0).add_(self.output.bias)

    def _of_few(self, queries: Tensor, context: Tensor, allowed: Tensor) -> Tensor:
        """Attend from few queries: they are brought into the space of the context, and gather there."""
        few = self._heads(self.query(queries)) * self._scale  # [B, H, N, D]
        offsets = few @ self.key.bias.view(self.heads, -1, 1)  # [B, H, N, 1]
        folded = _by_head(few, self._rows_by_head(self.key.weight))  # [B, H, N, C]
        logits = torch.baddbmm(offsets.flatten(1, 2), folded.flatten(1, 2), context.transpose(1, 2))
        shares = _shares(logits.view(len(logits), self.heads, -1, logits.shape[2]), allowed)
        seen = torch.bmm(shares.flatten(1, 2), context).view(*shares.shape[:3], -1)  # [B, H, N, C]
        value = self._rows_by_head(self.value.weight).transpose(1, 2)  # [H, C, D]
        gathered = _by_head(seen, value) + self.value.bias.view(self.heads, 1, -1)  # [B, H, N, D]
        gathered.masked_fill_(_sees_none(allowed), 0)
        return self.output(gathered.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # nn.Module.__call__

    def _heads(self, tokens: Tensor) -> Tensor:
        """Return [B, H, N, D] of tokens [B, N, W]."""
        items, count, width = tokens.shape
        return tokens.view(items, count, self.heads, width // self.heads).transpose(1, 2)

    def _rows_by_head(self, weight: Tensor) -> Tensor:
        """Return [H, D, E] of a matrix [H x D, E]."""
        return weight.reshape(self.heads, -1, weight.shape[1])

    @property
    def _scale(self) -> float:
        return float((self.key.out_features // self.heads) ** -0.5)


def _by_head(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Return [B, H, N, E] of vectors [B, H, N, D], each head's multiplied by its matrix of [H, D, E]."""
    items, heads, count, _ = vectors.shape
    product = torch.bmm(vectors.transpose(0, 1).reshape(heads, items * count, -1), matrices)
    return product.view(heads, items, count, -1).transpose(0, 1)


def _shares(logits: Tensor, allowed: Tensor) -> Tensor:
    """Return how much each query attends to each key [B, H, N, M]; one that may attend to none, to all alike."""
    return F.softmax(logits.masked_fill(~allowed, torch.finfo(logits.dtype).min / 2), -1)


def _sees_none(allowed: Tensor) -> Tensor:
    """Return bool [..., 1]: whether a query may attend to none of the keys [..., M]; what it gathers is zero."""
    return ~allowed.any(-1, keepdim=True)


class PostNorm(nn.Module):
    """The end of a post-norm sub-layer: dropout, residual, layer norm."""

    def __init__(self, width: int, dropout: float, *, eps: float = EPS) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, update: Tensor, residual: Tensor) -> Tensor:
        """Return norm(dropout(update) + residual)."""
        return self.norm(self.dropout(update) + residual)  # type: ignore[no-any-return]  # nn.Module.__call__


class Residual(nn.Module):
    """The end of a pre-norm sub-layer: dropout, residual."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)

    def forward(self, update: Tensor, residual: Tensor) -> Tensor:
        """Return dropout(update) + residual."""
        return self.dropout(update) + residual  # type: ignore[no-any-return]  # nn.Module.__call__


def sub_layer_end(width: int, dropout: float, *, eps: float, norm: Norm) -> PostNorm | Residual:
    """Return what ends a sub-layer."""
    return PostNorm(width, dropout, eps=eps) if norm == "post" else Residual(dropout)


def norm_before(width: int, *, eps: float, norm: Norm) -> nn.Module:
    """Return the norm before a pre-norm sub-layer, and after the last one; post-norm sub-layers need none."""
    return nn.LayerNorm(width, eps=eps) if norm == "pre" else nn.Identity()


class AttentionLayer(nn.Module):
    """Attention over the tokens themselves, or over another stream.

    crossing: the context is another stream, which has a norm of its own before pre-norm attention.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        *,
        context_width: int | None = None,
        eps: float = EPS,
        norm: Norm = "post",
        crossing: bool = False,
    ) -> None:
        super().__init__()
        self.start = norm_before(width, eps=eps, norm=norm)
        self.context_start = norm_before(context_width or width, eps=eps, norm=norm) if crossing else None
        self.attention = Attention(width, heads, context_width=context_width)
        self.end = sub_layer_end(width, dropout, eps=eps, norm=norm)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Return the updated queries [B, N, W]."""
        own = self.start(queries)
        if self.context_start is not None:
            seen = self.context_start(context)
        else:
            seen = own if context is queries else self.start(context)
        return self.end(self.attention(own, seen, mask), queries)  # type: ignore[no-any-return]  # nn.Module.__call__


class FeedForwardLayer(nn.Module):
    """A two-layer perceptron with GELU."""

    def __init__(self, width: int, hidden: int, dropout: float, *, eps: float = EPS, norm: Norm = "post") -> None:
        super().__init__()
        self.start = norm_before(width, eps=eps, norm=norm)
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.end = sub_layer_end(width, dropout, eps=eps, norm=norm)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the updated tokens [B, N, W]."""
        inner = self.inner(self.start(tokens))
        return self.end(not_keeping_between(F.gelu, self.outer, inner), tokens)  # type: ignore[no-any-return]


class Block(nn.Module):
    """Self attention, then MLP. It is a `TextBlock`: cross attention can stand between its halves."""

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, *, eps: float = EPS, norm: Norm = "post"
    ) -> None:
        super().__init__()
        self.attention = AttentionLayer(width, heads, dropout, eps=eps, norm=norm)
        self.mlp = FeedForwardLayer(width, hidden, dropout, eps=eps, norm=norm)

    def attend(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return hidden [B, N, W] after self attention, residual and norms; mask bool [B, N] or [B, N, N]."""
        return self.attention(hidden, hidden, mask)  # type: ignore[no-any-return]

    def feed(self, hidden: Tensor) -> Tensor:
        """Return hidden [B, N, W] after the MLP, residual and norms."""
        return self.mlp(hidden)  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor, mask: Tensor, wanted: slice = ALL) -> Tensor:
        """Return the next of the `wanted` tokens of [B, N, W]; mask bool [B, N], or a row for each wanted token."""
        queries = tokens if wanted == ALL else tokens[:, wanted]
        return self.mlp(self.attention(queries, tokens, mask))  # type: ignore[no-any-return]


def initialise(module: nn.Module) -> None:
    """Start every linear layer and embedding as BERT does: normal with deviation 0.02, biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
