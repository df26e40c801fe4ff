from __future__ import annotations

import math
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
from renaissance.errors import DataError, NonFiniteError, SpecError
from renaissance.resolve import resolve
from renaissance.toolkit.pairing import drawn_by_softmax, hardest, positives
from renaissance.toolkit.teaching import Taught

FACTS = ModelFacts(vision=8, text=8, joint=16, fused_text=8, shared_space=False, tokenizer=None)


class FixedScorer:
    """Scores given in place of a model's."""

    def __init__(self, belongs: Tensor, score: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.positives, self._score = belongs, score

    def similarity(self) -> Tensor:
        raise AssertionError("matching reads no similarities")

    def match(self, index: Tensor, by: str = "itm") -> Tensor:
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


# --- hard negatives, and both sides -------------------------------------------------------------------------------

SIDES: Any = ["image", "text", "both"]


def published(similarity: Tensor, scale: float = 1.0) -> dict[str, Any]:
    return {"itc": {"similarity": similarity * scale, "scale": torch.tensor(scale)}}


def chosen(batch: Any, given: dict[str, Any], **options: Any) -> Pairs:
    inputs = encoded(len(batch.caption_keys), len(batch.text_keys))
    return ImageTextMatching(ItmOptions(**options), model=FACTS).pairs(inputs, batch, given)


@given(keys=st.lists(st.integers(0, 3), min_size=2, max_size=8), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20, derandomize=True)
@pytest.mark.parametrize("hardness", ["sampled", "hardest"])
@pytest.mark.parametrize("negatives", ["random", "hard"])
@pytest.mark.parametrize("replaced", SIDES)
def test_no_false_pair_is_true_whatever_is_replaced(
    replaced: Any, negatives: Any, hardness: Any, keys: list[int], seed: int, tiny_model: Any, tiny_batch: Any
) -> None:
    told = [(f"caption number {key}", f"another of {number}") for number, key in enumerate(keys)]
    batch = tiny_batch(tiny_model(("itm",)), len(told), captions=told, seed=seed)
    belongs = positives(batch.caption_keys, batch.text_keys)
    similarity = published(torch.where(belongs, 9.0, torch.randn(belongs.shape)))  # a true pair would be hardest
    pairs = chosen(batch, similarity, replaced=replaced, negatives=negatives, hardness=hardness)
    assert pairs.targets is not None
    assert torch.equal(belongs[pairs.index[:, 0], pairs.index[:, 1]], pairs.targets)


@pytest.mark.parametrize("negatives", ["random", "hard"])
def test_another_caption_of_the_image_is_no_false_one(negatives: Any, tiny_model: Any, tiny_batch: Any) -> None:
    told = [("one", "two"), ("two", "one"), ("three", "four")]  # the captions of the first image stand for both
    batch = tiny_batch(tiny_model(("itm",)), 3, captions=told)
    similarity = published(torch.tensor([[0.0, 9.0, -9.0], [9.0, 0.0, -9.0], [0.0, 0.0, 0.0]]))
    pairs = chosen(batch, similarity, replaced="text", negatives=negatives, false_share=0.99)
    assert pairs.targets is not None
    assert pairs.targets.tolist() == [False] * 3
    assert pairs.index[:2, 1].tolist() == [2, 2]


@pytest.mark.parametrize("negatives", ["random", "hard"])
def test_with_both_sides_each_pair_is_there_once_true_and_twice_false(
    negatives: Any, tiny_model: Any, tiny_batch: Any
) -> None:
    batch = tiny_batch(tiny_model(("itm",)), 6)
    pairs = chosen(batch, published(torch.randn(6, 6)), replaced="both", negatives=negatives)
    assert pairs.targets is not None
    assert pairs.targets.tolist() == [True] * 6 + [False] * 12
    assert torch.equal(pairs.index[:6], batch.pairs)
    assert torch.equal(pairs.index[6:12, 1], batch.pairs[:, 1])
    assert torch.equal(pairs.index[12:, 0], batch.pairs[:, 0])
    assert (pairs.index[6:12, 0] != batch.pairs[:, 0]).all()
    assert (pairs.index[12:, 1] != batch.pairs[:, 1]).all()


def test_the_hardest_are_the_most_similar_by_a_plain_loop(tiny_model: Any, tiny_batch: Any) -> None:
    batch, similarity = tiny_batch(tiny_model(("itm",)), 6), torch.randn(6, 6)
    pairs = chosen(batch, published(similarity), replaced="both", negatives="hard", hardness="hardest")
    for pair in range(6):
        others = [other for other in range(6) if other != pair]
        assert int(pairs.index[6 + pair, 0]) == max(others, key=lambda image, text=pair: float(similarity[image, text]))
        assert int(pairs.index[12 + pair, 1]) == max(
            others, key=lambda text, image=pair: float(similarity[image, text])
        )


def test_hard_partners_are_drawn_by_the_softmax_of_the_similarities() -> None:
    scores = torch.tensor([0.0, 2.0, 5.0, 1.0, -1.0])
    allowed = torch.tensor([True, True, False, True, True])
    count = 40_000
    found = drawn_by_softmax(scores.expand(count, -1), allowed.expand(count, -1), torch.arange(count), "test")
    share = torch.bincount(found, minlength=5).double() / count
    weights = [math.exp(float(score)) * bool(may) for score, may in zip(scores, allowed, strict=True)]
    for place, weight in enumerate(weights):
        assert float(share[place]) == pytest.approx(weight / sum(weights), abs=0.01)
    assert share[2] == 0


@given(
    scores=st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=6),
    allowed=st.lists(st.booleans(), min_size=6, max_size=6),
    seed=st.integers(0, 2**60),
)
@settings(deadline=None, max_examples=200, derandomize=True)
def test_only_what_is_allowed_is_drawn(scores: list[float], allowed: list[bool], seed: int) -> None:
    row, may = torch.tensor([scores]), torch.tensor([allowed[: len(scores)]])
    for found in (drawn_by_softmax(row, may, torch.tensor([seed]), "test"), hardest(row, may)):
        assert bool(may[0, found]) if may.any() else int(found) == -1


def test_likely_true_partners_are_left_out(tiny_model: Any, tiny_batch: Any) -> None:
    batch = tiny_batch(tiny_model(("itm",)), 3)
    cosine = torch.tensor([[0.9, 0.8, 0.1], [0.2, 0.9, 0.7], [0.3, 0.6, 0.9]])
    for negatives in ("random", "hard"):
        pairs = chosen(
            batch, published(cosine, 20.0), replaced="both", negatives=negatives, max_similarity=0.65
        )  # fmt: skip
        false = pairs.index[~pairs.targets]  # type: ignore[operator]  # matching gives targets
        assert float(cosine[false[:, 0], false[:, 1]].max()) <= 0.65


def test_a_pair_without_anything_false_below_the_limit_is_left_out(tiny_model: Any, tiny_batch: Any) -> None:
    batch = tiny_batch(tiny_model(("itm",)), 2)
    pairs = chosen(batch, published(torch.ones(2, 2)), replaced="both", negatives="hard", max_similarity=0.5)
    assert pairs.targets is not None
    assert pairs.targets.tolist() == [True, True]


def test_what_is_drawn_for_a_pair_depends_on_its_seed_alone(tiny_model: Any, tiny_batch: Any) -> None:
    scores = torch.randn(8, 8)
    allowed = ~torch.eye(8, dtype=torch.bool)
    keys = torch.arange(8) * 7919
    whole = drawn_by_softmax(scores, allowed, keys, "test")
    alone = torch.cat(
        [drawn_by_softmax(scores[i : i + 1], allowed[i : i + 1], keys[i : i + 1], "test") for i in range(8)]
    )
    assert torch.equal(whole, alone)


@pytest.mark.parametrize(
    ("options", "tasks", "message"),
    [
        ({"negatives": "hard"}, {}, "negatives=hard reads the similarities of 'itc'"),
        ({"max_similarity": 0.5}, {}, "max_similarity reads the similarities of 'itc'"),
        ({"replaced": "both", "false_share": 0.25}, {}, "a third of the pairs is true; leave false_share out"),
    ],
)
def test_what_does_not_fit_is_refused(options: Any, tasks: Any, message: str, tiny_spec: Callable[..., str]) -> None:
    with pytest.raises(SpecError, match=message):
        resolve(tiny_spec(), {"itm": options, **tasks})


# --- distillation -------------------------------------------------------------------------------------------------


def taught_loss(pooled: Tensor, shown: Tensor, targets: Tensor, task: Any, teacher: Any) -> Any:
    features = Features(torch.zeros(len(pooled), 1, 8), torch.ones(len(pooled), 1, dtype=torch.bool))
    index = torch.zeros(len(pooled), 2, dtype=torch.int64)
    pairs = Pairs(features, features, index, frozenset({"pooled"}), targets=targets)
    nothing: Any = None
    lesson = Taught(nothing, teacher, Joint(pooled=shown), 5, {})
    inputs: Any = type("Inputs", (), {"taught": {"itm": lesson}})()
    return task.loss(inputs, Joint(pooled=pooled), pairs, nothing)


def test_the_taught_loss_is_that_of_a_plain_loop_in_float64_and_its_gradient_is_right() -> None:
    options = ItmOptions(distillation=0.4, distillation_ramp=10)
    task, teacher = (ImageTextMatching(options, model=FACTS).double() for _ in range(2))
    for built in (task, teacher):
        torch.nn.init.normal_(built.head.weight)
    pooled = torch.randn(5, 16, dtype=torch.float64)
    shown = torch.randn(5, 16, dtype=torch.float64)
    targets = torch.tensor([True, False, True, True, False])
    expected = 0.0
    for row, whole, matched in zip(pooled, shown, targets, strict=True):
        logit = float(task.head(row).detach())
        taught = 1 / (1 + math.exp(-float(teacher.head(whole).detach())))
        target = 0.8 * float(matched) + 0.2 * taught  # half of the ramp
        right = 1 / (1 + math.exp(-logit))
        expected -= target * math.log(right) + (1 - target) * math.log(1 - right)
    assert float(taught_loss(pooled, shown, targets, task, teacher).sum.detach()) == pytest.approx(expected, rel=1e-10)
    assert torch.autograd.gradcheck(
        lambda given: taught_loss(given, shown, targets, task, teacher).sum, (pooled.requires_grad_(),)
    )
