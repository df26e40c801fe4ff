"""Token types that tell the images of one item apart (NLVR2 has two)."""

from __future__ import annotations

from torch import nn


def zero_types(count: int, width: int) -> nn.Embedding:
    """Return types that start at zero, so that nothing changes until they are trained."""
    types = nn.Embedding(count, width)
    nn.init.zeros_(types.weight)
    return types


def slot_types(slots: int, width: int, old: nn.Embedding | None = None) -> nn.Embedding | None:
    """Return types for `slots` images of an item, None for one; what `old` learned of those that stay is kept."""
    if slots == (1 if old is None else old.num_embeddings):
        return old
    if slots == 1:
        return None
    types = zero_types(slots, width)
    if old is not None:
        kept = min(slots, old.num_embeddings)
        types.weight.data[:kept] = old.weight.data[:kept]
    return types
