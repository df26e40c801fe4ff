from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from renaissance.toolkit.losses import multi_positive_nce, sigmoid_pairs


def naive(similarity: list[list[float]], positive: list[list[bool]], candidates: list[bool]) -> list[float]:
    losses = []
    for row, belongs in zip(similarity, positive, strict=True):
        whole = math.log(math.fsum(math.exp(s) for s, c in zip(row, candidates, strict=True) if c))
        own = [whole - s for s, b, c in zip(row, belongs, candidates, strict=True) if b and c]
        losses.append(math.fsum(own) / max(1, len(own)))
    return losses


@given(seed=st.integers(0, 10_000), images=st.integers(1, 6), texts=st.integers(1, 7))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_the_loss_is_that_of_a_plain_loop(seed: int, images: int, texts: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarity = 5 * torch.randn(images, texts, generator=generator, dtype=torch.float64)
    positive = torch.rand(images, texts, generator=generator) < 0.4
    candidates = torch.rand(texts, generator=generator) < 0.7
    candidates[0] = True
    expected = naive(similarity.tolist(), positive.tolist(), candidates.tolist())
    found = multi_positive_nce(similarity, positive, candidates)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_the_gradient_is_right_and_finite_where_columns_are_left_out() -> None:
    similarity = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    positive = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]], dtype=torch.bool)
    candidates = torch.tensor([True, True, False, True])
    assert torch.autograd.gradcheck(lambda s: multi_positive_nce(s, positive, candidates), (similarity,))
    multi_positive_nce(similarity, positive, candidates).sum().backward()
    assert similarity.grad is not None
    assert torch.isfinite(similarity.grad).all()
    assert float(similarity.grad[:, 2].abs().sum()) == 0


def test_with_one_positive_a_row_it_is_cross_entropy() -> None:
    similarity = torch.randn(5, 5)
    every = torch.ones(5, dtype=torch.bool)
    found = multi_positive_nce(similarity, torch.eye(5, dtype=torch.bool), every)
    torch.testing.assert_close(found, F.cross_entropy(similarity, torch.arange(5), reduction="none"))


def test_equal_scores_give_the_logarithm_of_the_candidates() -> None:
    found = multi_positive_nce(torch.zeros(2, 8), torch.eye(2, 8, dtype=torch.bool), torch.arange(8) < 5)
    torch.testing.assert_close(found, torch.full((2,), math.log(5)))


def test_a_row_without_a_positive_has_no_loss() -> None:
    similarity = torch.randn(1, 3, requires_grad=True)
    found = multi_positive_nce(similarity, torch.zeros(1, 3, dtype=torch.bool), torch.ones(3, dtype=torch.bool))
    assert float(found.detach()) == 0
    found.sum().backward()
    assert similarity.grad is not None
    assert float(similarity.grad.abs().sum()) == 0


def test_large_scores_do_not_overflow() -> None:
    similarity = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    every = torch.ones(2, dtype=torch.bool)
    assert multi_positive_nce(similarity, torch.eye(2, dtype=torch.bool), every).tolist() == [0.0, 0.0]


def test_the_sigmoid_loss_is_the_binary_cross_entropy_of_every_candidate() -> None:
    logits = torch.randn(3, 5)
    positive, candidates = torch.rand(3, 5) < 0.4, torch.tensor([1, 1, 0, 1, 1], dtype=torch.bool)
    expected = F.binary_cross_entropy_with_logits(logits, positive.float(), reduction="none")[:, candidates].sum(1)
    torch.testing.assert_close(sigmoid_pairs(logits, positive, candidates), expected)


def test_the_sigmoid_loss_does_not_overflow() -> None:
    every = torch.ones(2, dtype=torch.bool)
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    found = sigmoid_pairs(logits, torch.tensor([[False, True]]), every)
    assert found.tolist() == [2e4]
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[1.0, -1.0]]
