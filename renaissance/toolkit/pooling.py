"""From tokens to one vector."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from renaissance.api import Features


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the real tokens: tokens [B, N, D], mask bool [B, N] -> [B, D]."""
    weights = mask.to(tokens.dtype).unsqueeze(-1)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)


def one_vector(features: Features) -> Tensor:
    """Return the pooled vector [B, D] of a tower, or the mean of its real tokens where it has none."""
    return masked_mean(features.tokens, features.mask) if features.pooled is None else features.pooled


def rows(features: Features, index: Tensor) -> Features:
    """Return the features of the rows in `index` int64 [P]."""
    return Features(
        features.tokens[index],
        features.mask[index],
        None if features.pooled is None else features.pooled[index],
        tuple(layer[index] for layer in features.layers),
        None if features.embedded is None else features.embedded[index],
    )


def over_tokens(features: Features, change: Callable[[Tensor], Tensor]) -> Features:
    """Return the features with `change` made to every tensor that has tokens [B, N, ...], the mask [B, N] included."""
    return Features(
        change(features.tokens),
        change(features.mask),
        features.pooled,
        tuple(change(layer) for layer in features.layers),
        None if features.embedded is None else change(features.embedded),
    )


class Pooler(nn.Module):
    """tanh(dense(x)) of the first token, where it stands for the whole input, or else of the mean."""

    def __init__(self, width: int, *, class_token: bool) -> None:
        super().__init__()
        self.class_token = class_token
        self.dense = nn.Linear(width, width)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Pool tokens [B, N, W] with their mask bool [B, N] into [B, W]."""
        vector = tokens[:, 0] if self.class_token else masked_mean(tokens, mask)
        return torch.tanh(self.dense(vector))
