from __future__ import annotations

import pytest
import torch
from torch import Tensor

from renaissance.api import ModelFacts, Score
from renaissance.builtin.retrieval import Retrieval, reranked
from renaissance.builtin.task_entries import RetrievalOptions
from renaissance.errors import CapabilityError, NonFiniteError

FACTS = ModelFacts(vision=8, text=8, joint=8, fused_text=8, shared_space=False, tokenizer=None)
BELONGS = torch.eye(12, dtype=torch.bool).repeat_interleave(2, dim=1)


class FixedScorer:
    """Scores given in place of a model's; counts the pairs that are matched."""

    def __init__(self, similarity: Tensor, match: Tensor) -> None:
        self.positives, self._similarity, self._match = BELONGS, similarity, match
        self.matched = 0

    def similarity(self) -> Tensor:
        return self._similarity

    def match(self, index: Tensor, by: str = "itm") -> Tensor:
        self.matched += len(index)
        return self._match[index[:, 0], index[:, 1]]


def measured(similarity: Tensor, match: Tensor, rerank: int = 0) -> tuple[dict[str, Score], FixedScorer]:
    scorer = FixedScorer(similarity, match)
    scores = Retrieval(RetrievalOptions(rerank=rerank), model=FACTS).score(scorer)
    return {score.name: score for score in scores}, scorer


def test_without_reranking_nothing_is_matched() -> None:
    found, scorer = measured(BELONGS.float(), -BELONGS.float())
    assert {score.value for name, score in found.items() if "sum" not in name} == {100.0}
    assert scorer.matched == 0


def test_reranking_orders_the_best_by_their_matches() -> None:
    similarity = torch.randn(BELONGS.shape)
    found, scorer = measured(similarity, BELONGS.float() * 10 - 5, rerank=24)
    assert found["text R@1"].value < 100
    assert {score.value for name, score in found.items() if name.startswith("reranked") and "sum" not in name} == {
        100.0
    }
    assert scorer.matched == BELONGS.numel()  # both directions ask for every pair, and each is matched once


def test_by_matches_alone_every_pair_is_matched_once_and_no_similarity_is_asked_for() -> None:
    class WithoutContrast(FixedScorer):
        def similarity(self) -> Tensor:
            raise CapabilityError("no 'itc'")

    scorer = WithoutContrast(torch.zeros(BELONGS.shape), BELONGS.float() * 10 - 5)
    scores = Retrieval(RetrievalOptions(rerank="all"), model=FACTS).score(scorer)
    assert {score.value for score in scores if "sum" not in score.name} == {100.0}
    assert scorer.matched == BELONGS.numel()


def test_reranking_cannot_save_what_contrast_missed() -> None:
    found, _ = measured(-BELONGS.float(), BELONGS.float(), rerank=3)
    assert found["reranked text R@1"].value == 0
    assert found["reranked image R@1"].value == 0


def test_the_best_stay_above_all_others_in_either_order() -> None:
    similarity = torch.randn(4, 9)
    match = torch.randn(4, 9) * 100
    found = reranked(similarity, 3, lambda index: match[index[:, 0], index[:, 1]])
    best = similarity.topk(3, dim=1).indices
    for row in range(4):
        order = found[row].argsort(descending=True)
        assert set(order[:3].tolist()) == set(best[row].tolist())
        assert match[row, order[:3]].tolist() == sorted(match[row, order[:3]].tolist(), reverse=True)
        rest = [place for place in similarity[row].argsort(descending=True).tolist() if place not in best[row].tolist()]
        assert order[3:].tolist() == rest


def test_reranking_does_not_break_the_ties_of_contrast() -> None:
    found, scorer = measured(torch.zeros(BELONGS.shape), BELONGS.float(), rerank=5)
    assert found["reranked text R@1"].value == found["reranked image R@10"].value == 0
    assert scorer.matched == 0


def test_ties_in_the_matches_stay_ties() -> None:
    found, _ = measured(BELONGS.float(), torch.zeros(BELONGS.shape), rerank=24)
    assert found["reranked text R@1"].value == 0
    assert found["reranked text R@1"].ties == 100


def test_scores_that_are_not_numbers_are_an_error() -> None:
    broken = torch.full(BELONGS.shape, float("nan"))
    with pytest.raises(NonFiniteError, match="retrieval: "):
        measured(broken, BELONGS.float())
    with pytest.raises(NonFiniteError, match="re-ranking: "):
        measured(BELONGS.float(), broken, rerank=2)
