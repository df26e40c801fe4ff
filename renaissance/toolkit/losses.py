"""Losses as sums, so that a count can be taken over processes and micro-batches. Letters: V images, T texts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def multi_positive_nce(similarity: Tensor, positive: Tensor, candidates: Tensor) -> Tensor:
    """Return -log softmax, averaged over the positives of each row: [V, T] -> [V].

    similarity float [V, T] is already divided by the temperature; positive bool [V, T]; candidates bool [T] are the
    columns that take part. With one positive a row it is the cross-entropy of InfoNCE (arXiv 1807.03748).
    """
    logits = similarity.masked_fill(~candidates, float("-inf"))
    log_probability = logits - torch.logsumexp(logits, dim=1, keepdim=True)
    chosen = positive & candidates
    return -log_probability.masked_fill(~chosen, 0.0).sum(1) / chosen.sum(1).clamp(min=1)


def sigmoid_pairs(logits: Tensor, positive: Tensor, candidates: Tensor) -> Tensor:
    """Return -log sigmoid of each pair's logit, negated where the pair is false, summed by row: [V, T] -> [V].

    positive bool [V, T]; candidates bool [T] are the columns that take part (SigLIP, arXiv 2303.15343, algorithm 1).
    """
    signed = torch.where(positive, logits, -logits)
    return -F.logsigmoid(signed).masked_fill(~candidates, 0.0).sum(1)
