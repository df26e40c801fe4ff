"""Attention and feed-forward blocks on PyTorch's scaled-dot-product attention.

Letters: B items, N queries, M keys, W width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention of queries [B, N, W] over a context [B, M, W] with its mask bool [B, M] (True: real)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Return what each query gathers from the context [B, N, W]."""
        q, k, v = (self._heads(part) for part in (self.query(queries), self.key(context), self.value(context)))
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])  # [B, heads, N, W / heads]
        return self.output(gathered.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # nn.Module.__call__

    def _heads(self, tokens: Tensor) -> Tensor:
        items, count, width = tokens.shape
        return tokens.view(items, count, self.heads, width // self.heads).transpose(1, 2)


class PostNorm(nn.Module):
    """The end of a post-norm sub-layer: dropout, residual, layer norm."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, update: Tensor, residual: Tensor) -> Tensor:
        """Return norm(dropout(update) + residual)."""
        return self.norm(self.dropout(update) + residual)  # type: ignore[no-any-return]  # nn.Module.__call__


class AttentionLayer(nn.Module):
    """Post-norm attention: over the tokens themselves, or over another stream."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.end = PostNorm(width, dropout)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """Return the updated queries [B, N, W]."""
        return self.end(self.attention(queries, context, mask), queries)  # type: ignore[no-any-return]


class FeedForwardLayer(nn.Module):
    """Post-norm two-layer perceptron with GELU."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.end = PostNorm(width, dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the updated tokens [B, N, W]."""
        return self.end(self.outer(F.gelu(self.inner(tokens))), tokens)  # type: ignore[no-any-return]


def initialise(module: nn.Module) -> None:
    """Start every linear layer and embedding as BERT does: normal with deviation 0.02, biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
