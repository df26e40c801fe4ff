"""Image-text retrieval as PROTOCOLS states it. Letters: V images, T distinct texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.api import Batch, Encoded, Joint, ModelFacts, Pairs, Score, Scorer, TaskLoss, Views
from renaissance.builtin.task_entries import RetrievalOptions
from renaissance.toolkit.metrics import finite, recalls


class Retrieval(nn.Module):
    """Rank all texts for each image and all images for each text: R@1, R@5, R@10, their means and their sum.

    With `rerank` the best k by ITC are ordered by their ITM scores and stay above all others.
    """

    def __init__(self, options: RetrievalOptions, *, model: ModelFacts) -> None:
        super().__init__()
        self.options = options

    def views(self, batch: Batch) -> Views:
        """Retrieval does not train."""
        return Views()

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> None:
        """Retrieval does not train."""

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        """Retrieval has no loss; `resolve` refuses it among the tasks to train."""
        raise AssertionError("retrieval was asked for a loss")

    def score(self, scorer: Scorer) -> list[Score]:
        """Return the recalls by ITC and, with `rerank`, by ITC then ITM ("reranked ...")."""
        similarity = finite(scorer.similarity(), what="retrieval")
        scores = recalls(similarity, similarity.T, scorer.positives)
        if self.options.rerank:
            k = self.options.rerank
            text_ranks = reranked(similarity, k, scorer.match)
            image_ranks = reranked(similarity.T, k, lambda index: scorer.match(index.flip(1)))
            scores += recalls(text_ranks, image_ranks, scorer.positives, prefix="reranked ")
        return scores


def reranked(similarity: Tensor, k: int, match: Any) -> Tensor:
    """Return scores [Q, N] that order the k best of each query by `match`, above all others in their old order.

    A candidate that ties with one beyond the k best is not among them: ties never help.
    match(index int64 [P, 2]) gives the ITM logits fp32 [P] of (query, candidate) pairs.
    """
    queries, candidates = similarity.shape
    k = min(k, candidates)
    values, best = similarity.topk(k, dim=1)  # [Q, k]
    beyond = similarity.topk(k + 1, dim=1).values[:, k:] if k < candidates else float("-inf")
    clear = values > beyond  # [Q, k]
    order = similarity.double()
    if not clear.any():
        return order
    index = torch.stack([torch.arange(queries).repeat_interleave(k), best.flatten()], dim=1)
    logits = torch.zeros(queries, k, dtype=torch.float64)
    logits[clear] = finite(match(index[clear.flatten()]), what="re-ranking").double()
    above = logits - logits.amin(1, keepdim=True) + order.amax(1, keepdim=True) + 1.0
    return order.scatter(1, best, torch.where(clear, above, values.double()))
