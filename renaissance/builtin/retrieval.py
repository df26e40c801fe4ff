"""Image-text retrieval as PROTOCOLS states it. Letters: V images, T distinct texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from renaissance.api import Batch, Encoded, Joint, ModelFacts, Pairs, Score, Scorer, TaskLoss, Views
from renaissance.builtin.task_entries import RetrievalOptions
from renaissance.toolkit.metrics import finite, recalls


class Retrieval(nn.Module):
    """Rank all texts for each image and all images for each text: R@1, R@5, R@10, their means and their sum.

    With `rerank` the best k by ITC are ordered by their ITM scores and stay above all others; with rerank="all" every
    image is matched with every text.
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
        """Return the recalls by ITC and, with `rerank`, by ITC then ITM ("reranked ...").

        With rerank="all" every pair is scored by ITM, and these recalls are all ("full ...").
        """
        if self.options.rerank == "all":
            scores = PairScores(scorer, self.options.score).all()
            return recalls(scores, scores.T, scorer.positives, prefix="full ")
        pairs = PairScores(scorer, self.options.score)
        found = recalls(pairs.similarity, pairs.similarity.T, scorer.positives)
        if self.options.rerank:
            found += recalls(*pairs.reranked(self.options.rerank), scorer.positives, prefix="reranked ")
        return found


class PairScores:
    """What a split's images and texts score together, by ITM, ITM and ITC, or ranking; each pair is matched once.

    sums: the scores are sums of ITM's logits and ITC's similarities.
    """

    def __init__(self, scorer: Scorer, score: Literal["itm", "itm+itc", "rank"]) -> None:
        self._scorer, self._by, self.sums = scorer, "rank" if score == "rank" else "itm", score == "itm+itc"
        self._similarity: Tensor | None = None
        self._known = torch.zeros_like(scorer.positives)  # bool [V, T]
        self._scores = torch.zeros(self._known.shape, dtype=torch.float64)

    @property
    def matched(self) -> int:
        """The number of pairs that were matched."""
        return int(self._known.sum())

    @property
    def similarity(self) -> Tensor:
        """Dot products of ITC's unit vectors, fp32 [V, T]."""
        if self._similarity is None:
            self._similarity = finite(self._scorer.similarity(), what="retrieval")
        return self._similarity

    def all(self) -> Tensor:
        """Return the scores of all pairs, fp64 [V, T]."""
        every = torch.ones_like(self._known).nonzero()
        self.of(every)
        return self._scores

    def of(self, index: Tensor) -> Tensor:
        """Return the scores of (image, text) pairs fp64 [P], index int64 [P, 2]; only new ones are matched."""
        image, text = index.unbind(1)
        new = index[~self._known[image, text]]
        if len(new):
            logits = finite(self._scorer.match(new, self._by), what="re-ranking").double()
            extra = self.similarity[new[:, 0], new[:, 1]].double() if self.sums else 0.0
            self._scores[new[:, 0], new[:, 1]] = logits + extra
            self._known[new[:, 0], new[:, 1]] = True
        return self._scores[image, text]

    def reranked(self, k: int) -> tuple[Tensor, Tensor]:
        """Return what orders the texts of each image [V, T] and the images of each text [T, V], the k best by these."""
        by_image = reranked(self.similarity, k, self.of)
        return by_image, reranked(self.similarity.T, k, lambda index: self.of(index.flip(1)))


def reranked(similarity: Tensor, k: int, match: Callable[[Tensor], Tensor]) -> Tensor:
    """Return scores [Q, N] that order the k best of each query by `match`, above all others in their old order.

    A candidate that ties with one beyond the k best is not among them: ties never help. With k = N or more these are
    the scores of `match` as they are.
    match(index int64 [P, 2]) gives the scores [P] of (query, candidate) pairs.
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
    scores = torch.zeros(queries, k, dtype=torch.float64)
    scores[clear] = finite(match(index[clear.flatten()]), what="re-ranking").double()
    if k == candidates:
        return order.scatter(1, best, scores)
    # places, not the scores themselves: added to another number, two that differ little could become equal
    places = (scores.unsqueeze(2) > scores.unsqueeze(1)).sum(2) + 1  # [Q, k]
    above = order.amax(1, keepdim=True) + places
    return order.scatter(1, best, torch.where(clear, above, values.double()))


# --- what a cascade costs -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Costs:
    """FLOPs of encoding an image, of encoding a text, of one dot product, and of fusing and matching a pair."""

    image: float
    text: float
    product: float
    pair: float


@dataclass(frozen=True, slots=True)
class CascadeRow:
    """Retrieval with the k best re-ranked (None: every pair matched): its recalls, pairs matched, and FLOPs.

    The FLOPs are of both directions together, towers included; a pair that both ask for is matched once.
    """

    k: int | None
    matched: int
    flops: float
    scores: Sequence[Score]


CASCADE: tuple[int | None, ...] = (1, 4, 16, 64, 256, None)


def cascade(
    scorer: Scorer,
    costs: Costs,
    *,
    ks: Sequence[int | None] = CASCADE,
    score: Literal["itm", "itm+itc"] = "itm",
) -> list[CascadeRow]:
    """Return recall against FLOPs for each k, in rising order, None (all) last; those beyond the split are left out.

    Each pair is matched once, however many k ask for it; with k = all the scores are those of the full matrix.
    """
    images, texts = scorer.positives.shape
    limited = sorted({k for k in ks if k is not None and k < max(images, texts)})
    pairs = PairScores(scorer, score)
    towers = images * costs.image + texts * costs.text
    rows = [_cascade_row(k, pairs, scorer, towers, costs) for k in limited]
    return [*rows, _cascade_row(None, pairs, scorer, towers, costs)] if None in ks else rows


def _cascade_row(k: int | None, pairs: PairScores, scorer: Scorer, towers: float, costs: Costs) -> CascadeRow:
    if k is None:
        scores = pairs.all()
        by_image, by_text = scores, scores.T
        ranking = pairs.matched * costs.product if pairs.sums else 0.0
    else:
        by_image, by_text = pairs.reranked(k)
        ranking = scorer.positives.numel() * costs.product
    flops = towers + ranking + pairs.matched * costs.pair
    return CascadeRow(k, pairs.matched, flops, recalls(by_image, by_text, scorer.positives))
