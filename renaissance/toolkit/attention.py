"""Attention and feed-forward blocks on PyTorch's scaled-dot-product attention.

Letters: B items, N queries, M keys, W width, C the context's width.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.toolkit.dropout import Dropout

EPS = 1e-12
# Where LayerNorm stands: after each sub-layer and its residual (BERT), or before it (ViT).
Norm = Literal["pre", "post"]
ALL = slice(None)


class Attention(nn.Module):
    """Multi-head attention of queries [B, N, W] over a context [B, M, C]; C is W unless `context_width` says else.

    Its mask is bool [B, M] (True: real), or [B, N, M] (True: this query may attend to this key).
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
        q, k, v = (self._heads(part) for part in (self.query(queries), self.key(context), self.value(context)))
        allowed = mask[:, None, None, :] if mask.dim() == 2 else mask[:, None]
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)  # [B, heads, N, W / heads]
        return self.output(gathered.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # nn.Module.__call__

    def _heads(self, tokens: Tensor) -> Tensor:
        items, count, width = tokens.shape
        return tokens.view(items, count, self.heads, width // self.heads).transpose(1, 2)


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
        return self.end(self.outer(F.gelu(self.inner(self.start(tokens)))), tokens)  # type: ignore[no-any-return]


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
