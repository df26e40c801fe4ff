"""Attention and feed-forward blocks on PyTorch's scaled-dot-product attention.

Letters: B items, N queries, M keys, W width, C the context's width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-12
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
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, update: Tensor, residual: Tensor) -> Tensor:
        """Return norm(dropout(update) + residual)."""
        return self.norm(self.dropout(update) + residual)  # type: ignore[no-any-return]  # nn.Module.__call__


class AttentionLayer(nn.Module):
    """Post-norm attention: over the tokens themselves, or over another stream."""

    def __init__(
        self, width: int, heads: int, dropout: float, *, context_width: int | None = None, eps: float = EPS
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads, context_width=context_width)
        self.end = PostNorm(width, dropout, eps=eps)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Return the updated queries [B, N, W]."""
        return self.end(self.attention(queries, context, mask), queries)  # type: ignore[no-any-return]


class FeedForwardLayer(nn.Module):
    """Post-norm two-layer perceptron with GELU."""

    def __init__(self, width: int, hidden: int, dropout: float, *, eps: float = EPS) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.end = PostNorm(width, dropout, eps=eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the updated tokens [B, N, W]."""
        return self.end(self.outer(F.gelu(self.inner(tokens))), tokens)  # type: ignore[no-any-return]


class PostNormBlock(nn.Module):
    """A block of BERT: self attention, then MLP. It is a `TextBlock`: cross attention can stand between its halves."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, *, eps: float = EPS) -> None:
        super().__init__()
        self.attention = AttentionLayer(width, heads, dropout, eps=eps)
        self.mlp = FeedForwardLayer(width, hidden, dropout, eps=eps)

    def attend(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return hidden [B, N, W] after self attention, residual and norm; mask bool [B, N] or [B, N, N]."""
        return self.attention(hidden, hidden, mask)  # type: ignore[no-any-return]

    def feed(self, hidden: Tensor) -> Tensor:
        """Return hidden [B, N, W] after the MLP, residual and norm."""
        return self.mlp(hidden)  # type: ignore[no-any-return]

    def forward(self, tokens: Tensor, mask: Tensor, wanted: slice = ALL) -> Tensor:
        """Return the next of the `wanted` tokens of [B, N, W]; mask bool [B, N], or a row for each wanted token."""
        return self.mlp(self.attention(tokens[:, wanted], tokens, mask))  # type: ignore[no-any-return]


class PreNormBlock(nn.Module):
    """A block of ViT: norm and self attention, norm and MLP, each added to its input."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float, *, eps: float = EPS) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width, eps=eps)
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, mask: Tensor, wanted: slice = ALL) -> Tensor:
        """Return the next of the `wanted` tokens of [B, N, W]; mask bool [B, N], or a row for each wanted token."""
        normed = self.attention_norm(tokens)
        tokens = tokens[:, wanted] + self.dropout(self.attention(normed[:, wanted], normed, mask))
        return tokens + self.dropout(self.outer(F.gelu(self.inner(self.mlp_norm(tokens)))))  # type: ignore[no-any-return]


def initialise(module: nn.Module) -> None:
    """Start every linear layer and embedding as BERT does: normal with deviation 0.02, biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
