"""Retrieval by every pair, by sums of scores, and what a cascade gives for its cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from renaissance.api import ModelFacts
from renaissance.builtin.retrieval import Costs, PairScores, Retrieval, cascade, reranked
from renaissance.builtin.task_entries import RetrievalOptions
from renaissance.errors import NonFiniteError, SpecError
from renaissance.resolve import resolve
from renaissance.toolkit.metrics import recalls

FACTS = ModelFacts(vision=8, text=8, joint=8, fused_text=8, shared_space=False, tokenizer=None)
BELONGS = torch.eye(12, dtype=torch.bool).repeat_interleave(2, dim=1)
COSTS = Costs(image=1000.0, text=100.0, product=1.0, pair=50.0)


class FixedScorer:
    """Scores given in place of a model's; notes the pairs that are matched."""

    def __init__(self, similarity: Tensor | None, match: Tensor) -> None:
        self.positives, self._similarity, self._match = BELONGS, similarity, match
        self.asked: list[tuple[int, int]] = []

    def similarity(self) -> Tensor:
        assert self._similarity is not None, "no similarity is needed"
        return self._similarity

    def match(self, index: Tensor, by: str = "itm") -> Tensor:
        self.asked += [(int(image), int(text)) for image, text in index]
        return self._match[index[:, 0], index[:, 1]]


def measured(scorer: Any, **options: Any) -> dict[str, float]:
    scores = Retrieval(RetrievalOptions(**options), model=FACTS).score(scorer)
    return {score.name: score.value for score in scores}


def test_every_pair_is_matched_once_and_no_similarity_is_read() -> None:
    match = torch.randn(BELONGS.shape)
    scorer = FixedScorer(None, match)
    found = measured(scorer, rerank="all")
    expected = {score.name: score.value for score in recalls(match, match.T, BELONGS, prefix="full ")}
    assert found == expected
    assert len(scorer.asked) == len(set(scorer.asked)) == BELONGS.numel()


def test_with_the_sum_both_scores_count() -> None:
    similarity, match = torch.randn(BELONGS.shape), torch.randn(BELONGS.shape)
    both = similarity + match
    found = measured(FixedScorer(similarity, match), rerank="all", score="itm+itc")
    assert found == {score.name: score.value for score in recalls(both, both.T, BELONGS, prefix="full ")}
    best = measured(FixedScorer(similarity, match), rerank=24, score="itm+itc")
    assert best["reranked sum of R@k"] == found["full sum of R@k"]


@pytest.mark.parametrize("score", ["itm", "itm+itc"])
def test_with_k_of_all_the_scores_are_those_of_the_full_matrix_exactly(score: Any) -> None:
    similarity = torch.randn(BELONGS.shape) * 1e3
    match = torch.randn(BELONGS.shape) * torch.logspace(-30, 3, BELONGS.numel()).view(BELONGS.shape)
    full = PairScores(FixedScorer(similarity, match), score).all()
    by_image, by_text = PairScores(FixedScorer(similarity, match), score).reranked(24)
    assert torch.equal(by_image, full)
    assert torch.equal(by_text, full.T)


def test_scores_that_hardly_differ_are_still_told_apart() -> None:
    similarity = torch.tensor([[1e6, 9e5, 8e5, 0.0]])
    match = torch.tensor([[1e-30, 2e-30, 1e-30, 5.0]])
    found = reranked(similarity, 3, lambda index: match[index[:, 0], index[:, 1]])
    assert found[0, 1] > found[0, 0] == found[0, 2] > found[0, 3]


def test_the_table_gives_recall_and_cost_for_each_k() -> None:
    similarity, match = torch.randn(BELONGS.shape), BELONGS + 0.1 * torch.randn(BELONGS.shape)
    scorer = FixedScorer(similarity, match)
    rows = cascade(scorer, COSTS)
    assert [row.k for row in rows] == [1, 4, 16, None]  # 64 and more are all
    assert [row.matched for row in rows] == sorted(row.matched for row in rows)
    assert rows[-1].matched == BELONGS.numel()
    assert len(scorer.asked) == len(set(scorer.asked)) == BELONGS.numel()
    totals = [row.scores[-1].value for row in rows]
    assert totals == sorted(totals)
    towers = 12 * 1000 + 24 * 100
    assert [row.flops for row in rows[:-1]] == [towers + BELONGS.numel() + 50 * row.matched for row in rows[:-1]]
    assert rows[-1].flops == towers + 50 * BELONGS.numel()


def test_each_row_of_the_table_is_what_that_k_gives_alone() -> None:
    similarity, match = torch.randn(BELONGS.shape), torch.randn(BELONGS.shape)
    for row in cascade(FixedScorer(similarity, match), COSTS, ks=(None, 4, 1)):
        scorer = FixedScorer(similarity, match)
        options: dict[str, Any] = {"rerank": "all" if row.k is None else row.k}
        found = list(measured(scorer, **options).values())[-len(row.scores) :]
        assert [score.value for score in row.scores] == found
        assert row.matched == len(set(scorer.asked))


def test_the_sum_counts_its_products_in_the_full_matrix_too() -> None:
    (row,) = cascade(
        FixedScorer(torch.randn(BELONGS.shape), torch.randn(BELONGS.shape)), COSTS, ks=(None,), score="itm+itc"
    )
    assert row.flops == 12 * 1000 + 24 * 100 + 51 * BELONGS.numel()


def test_a_collapsed_model_has_no_recall_for_any_k() -> None:
    for row in cascade(FixedScorer(torch.zeros(BELONGS.shape), torch.zeros(BELONGS.shape)), COSTS):
        assert row.scores[-1].value == 0


def test_scores_that_are_not_numbers_are_an_error() -> None:
    with pytest.raises(NonFiniteError, match="re-ranking: "):
        cascade(FixedScorer(BELONGS.float(), torch.full(BELONGS.shape, float("nan"))), COSTS)


def test_what_is_not_trained_for_is_refused(tiny_spec: Any) -> None:
    with pytest.raises(SpecError, match="rerank orders by ITM scores"):
        resolve(tiny_spec(), {"itc": {}, "retrieval": {"rerank": "all"}})
