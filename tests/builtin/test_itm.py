from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from renaissance.api import Features, Joint, ModelFacts, Pairs
from renaissance.builtin.itm import ImageTextMatching
from renaissance.builtin.task_entries import ItmOptions
from renaissance.errors import DataError, NonFiniteError
from renaissance.toolkit.pairing import positives

FACTS = ModelFacts(vision=8, text=8, joint=16, fused_text=8, shared_space=False, tokenizer=None)


class FixedScorer:
    """Scores given in place of a model's."""

    def __init__(self, belongs: Tensor, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.positives, self._score = belongs, score

    def similarity(self) -> Tensor:
        raise AssertionError("matching reads no similarities")

    def match(self, index: Tensor) -> Tensor:
        return self._score(index, self.positives[index[:, 0], index[:, 1]])


def encoded(images: int, texts: int) -> Any:
    class Inputs:
        vision = Features(torch.randn(images, 2, 8), torch.ones(images, 2, dtype=torch.bool))
        text = Features(torch.randn(texts, 3, 8), torch.ones(texts, 3, dtype=torch.bool))

    return Inputs()


@pytest.mark.parametrize("share", [0.5, 0.25, 0.1])
@pytest.mark.parametrize("count", [2, 5, 8])
def test_the_share_of_false_pairs_is_exact(
    share: float, count: int, tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    model = tiny_model(("itm",))
    task = ImageTextMatching(ItmOptions(false_share=share), model=FACTS)
    for seed in range(5):
        batch = tiny_batch(model, count, seed=seed)
        pairs = task.pairs(encoded(count, count), batch, {})
        assert int((~pairs.targets).sum()) == round(count * share)
        assert len(pairs.targets) == count


@given(keys=st.lists(st.integers(0, 3), min_size=2, max_size=8), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30, derandomize=True)
def test_a_false_pair_is_never_a_caption_of_the_image_nor_equal_to_one(
    keys: list[int], seed: int, tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    model = tiny_model(("itm",))
    told = [(f"caption number {key}", f"another of {number}") for number, key in enumerate(keys)]
    batch = tiny_batch(model, len(told), captions=told, seed=seed)
    pairs = ImageTextMatching(ItmOptions(), model=FACTS).pairs(encoded(len(told), len(batch.text_keys)), batch, {})
    belongs = positives(batch.caption_keys, batch.text_keys)
    assert torch.equal(belongs[pairs.index[:, 0], pairs.index[:, 1]], pairs.targets)


def test_pairs_for_which_the_batch_has_no_false_image_are_left_out(
    tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    model = tiny_model(("itm",))
    batch = tiny_batch(model, 4, captions=[("the same", "the same")] * 4)
    pairs = ImageTextMatching(ItmOptions(), model=FACTS).pairs(encoded(4, 1), batch, {})
    assert pairs.targets.tolist() == [True, True]
    assert pairs.index.min() >= 0


def test_the_loss_is_binary_cross_entropy() -> None:
    task = ImageTextMatching(ItmOptions(), model=FACTS)
    pooled = torch.randn(6, 16)
    targets = torch.tensor([True, False, True, True, False, False])
    features = Features(torch.zeros(6, 1, 8), torch.ones(6, 1, dtype=torch.bool))
    index = torch.zeros(6, 2, dtype=torch.int64)
    pairs = Pairs(features, features, index, frozenset({"pooled"}), targets=targets)
    nothing: Any = None
    result = task.loss(nothing, Joint(pooled=pooled), pairs, nothing)
    logits = task.head(pooled).squeeze(-1)
    torch.testing.assert_close(result.sum, F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="sum"))
    assert int(result.count) == 6
    assert int(result.metrics["accuracy"][0]) == int(((logits > 0) == targets).sum())


def measured(score: Callable[[Tensor, Tensor], Tensor], belongs: Tensor | None = None) -> Any:
    belongs = torch.eye(20, dtype=torch.bool).repeat_interleave(3, dim=1) if belongs is None else belongs
    (found,) = ImageTextMatching(ItmOptions(), model=FACTS).score(FixedScorer(belongs, score))
    return found


def test_an_oracle_is_always_right() -> None:
    found = measured(lambda _, own: own.float() - 0.5)
    assert (found.value, found.low, found.high, found.ties) == (100.0, 100.0, 100.0, 0.0)
    assert (found.n, found.units, found.chance) == (120, 20, 50.0)


def test_an_inverted_oracle_is_never_right() -> None:
    assert measured(lambda _, own: 0.5 - own.float()).value == 0.0


@pytest.mark.parametrize(("constant", "value", "ties"), [(0.0, 0.0, 100.0), (3.0, 50.0, 0.0), (-3.0, 50.0, 0.0)])
def test_a_collapsed_model_is_never_above_chance(constant: float, value: float, ties: float) -> None:
    found = measured(lambda index, _: torch.full((len(index),), constant))
    assert (found.value, found.ties) == (value, ties)


def test_a_score_that_is_not_a_number_is_an_error() -> None:
    with pytest.raises(NonFiniteError, match="itm: "):
        measured(lambda index, _: torch.full((len(index),), float("nan")))


def test_a_split_without_false_images_cannot_be_measured() -> None:
    with pytest.raises(DataError, match="this split has none"):
        measured(lambda index, _: torch.zeros(len(index)), torch.ones(1, 4, dtype=torch.bool))


def test_measuring_draws_the_same_false_images_each_time() -> None:
    seen: list[Tensor] = []

    def score(index: Tensor, own: Tensor) -> Tensor:
        seen.append(index)
        return own.float() - 0.5

    measured(score)
    measured(score)
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
