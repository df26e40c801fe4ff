"""Losses as sums, so that a count can be taken over processes and micro-batches. Letters: V images, T texts, K classes.

B is any batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """Return a floating tensor in fp32, or as it is where it is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


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


def imitation(logits: Tensor, teacher: Tensor, candidates: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of each row with the softmax of the teacher's logits: [B, K] -> [B].

    candidates bool [K] are the columns that take part; None: all. The teacher gets no gradient.
    """
    out = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device) if candidates is None else ~candidates
    targets = teacher.detach().masked_fill(out, float("-inf")).softmax(1)
    log_probability = logits.masked_fill(out, float("-inf")).log_softmax(1)
    return -(targets * log_probability.masked_fill(out, 0.0)).sum(1)


def matching(logits: Tensor, matched: Tensor, teacher: Tensor | None = None, share: float = 0.0) -> Tensor:
    """Return the binary cross-entropy of each logit [B], matched bool [B].

    teacher: the logits [B] of a teacher, whose probabilities make up a `share` of the targets.
    """
    targets = matched.to(logits.dtype)
    if teacher is not None:
        targets = (1 - share) * targets + share * teacher.detach().to(logits.dtype).sigmoid()
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of each row: [B, K] -> [B]; the target gets no gradient."""
    return (predicted - target.detach()).square().mean(1)
