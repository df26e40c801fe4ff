"""Choosing among candidates: ragged softmax, boxes that are given and detected."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from renaissance.api import Joint
from renaissance.builtin.choice import choice, overlap, referring
from renaissance.builtin.downstream_options import ChoiceOptions, ReferringOptions
from renaissance.errors import DataError
from tests.builtin.item_cases import FACTS, FakeScorer, item

BOXES = ((0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 10.0, 10.0))


def batch_of(items: list[int], targets: list[int]) -> Any:
    batch: Any = type("Labels", (), {})
    batch.items, batch.targets = torch.tensor(items), {"choice": torch.tensor(targets)}
    return batch


def test_padding_candidates_take_no_part_in_the_softmax() -> None:
    torch.manual_seed(0)
    task = choice(ChoiceOptions(), model=FACTS)
    batch = batch_of([0, 0, 1, 1, 1, 2], [1, 0, 0])
    joint = Joint(pooled=torch.randn(6, 6))
    with torch.no_grad():
        logits = [each.double() for each in task.decide(None, joint, batch)]  # type: ignore[arg-type]  # unread
        found = task.loss(None, joint, None, batch)  # type: ignore[arg-type]  # it reads no encoded input
    assert [len(each) for each in logits] == [2, 3, 1]
    naive = -sum(each.log_softmax(0)[target] for each, target in zip(logits, (1, 0, 0), strict=True))
    assert float(found.sum) == pytest.approx(float(naive), abs=1e-5)
    assert int(found.count) == 3


def test_candidates_go_to_their_item_whatever_the_order_of_pairs() -> None:
    torch.manual_seed(0)
    task = choice(ChoiceOptions(), model=FACTS).eval()
    pooled = torch.randn(4, 6)
    sorted_ = task.decide(None, Joint(pooled=pooled), batch_of([0, 0, 1, 1], []))  # type: ignore[arg-type]  # unread
    mixed = task.decide(None, Joint(pooled=pooled[[2, 0, 1, 3]]), batch_of([1, 0, 0, 1], []))  # type: ignore[arg-type]
    for one, other in zip(sorted_, mixed, strict=True):
        torch.testing.assert_close(one, other)


def test_the_loss_has_a_right_gradient() -> None:
    task = choice(ChoiceOptions(hidden=3), model=FACTS).double()
    batch = batch_of([0, 0, 1, 1, 1], [1, 2])

    def loss(pooled: torch.Tensor) -> torch.Tensor:
        logits = task.outer(F.gelu(task.norm(task.inner(pooled)))).squeeze(-1)
        return F.cross_entropy(logits[:2][None], torch.tensor([1])) + F.cross_entropy(
            logits[2:][None], torch.tensor([2])
        )

    pooled = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (pooled,))
    (expected,) = torch.autograd.grad(loss(pooled), pooled)
    lost = task.loss(None, Joint(pooled=pooled), None, batch)  # type: ignore[arg-type]  # it reads no encoded input
    (found,) = torch.autograd.grad(lost.sum, pooled)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 10, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 10, 10), 0.0),
        ((0, 0, 10, 10), (2, 2, 5, 5), 0.25),
        ((0, 0, 0, 0), (0, 0, 0, 0), 0.0),
    ],
)
def test_overlap_is_the_intersection_over_the_union(one: Any, other: Any, expected: float) -> None:
    assert overlap(one, other) == pytest.approx(expected)
    assert overlap(other, one) == pytest.approx(expected)


def test_given_boxes_never_give_a_figure_that_is_called_accuracy() -> None:
    items = [item(0, boxes=BOXES, target=1), item(1, boxes=BOXES, target=0)]
    task = referring(ReferringOptions(), model=FACTS)
    scorer: Any = FakeScorer(items, {"q-0": torch.tensor([0.0, 1.0]), "q-1": torch.tensor([0.0, 1.0])})
    (score,) = task.score(scorer)
    assert (score.name, score.value, score.chance) == ("gt-choice accuracy", 50.0, 50.0)


def test_a_detected_box_counts_from_half_overlap_on_and_a_missing_one_is_wrong() -> None:
    detections = ([[0, 0, 10, 5.1, 0.9]], [[0, 0, 10, 4.9, 0.9]], [])
    items = [
        item(n, boxes=BOXES, target=0, fields={"detections": json.dumps(each)}) for n, each in enumerate(detections)
    ]
    task = referring(ReferringOptions(), model=FACTS)
    given = FakeScorer(items, {i.id: torch.tensor([1.0, 0.0]) for i in items})
    found = FakeScorer(items, {i.id: torch.tensor([1.0]) for i in items})
    scorer: Any = replace(given)
    scorer.on = found.on
    scores = {score.name: score for score in task.score(scorer)}
    assert scores["gt-choice accuracy"].value == 100
    assert scores["accuracy"].value == pytest.approx(100 / 3)
    assert scores["accuracy"].n == 3
    rows = task.submission(scorer)
    assert [row["box"] for row in rows] == [[0.0, 0.0, 10.0, 5.1], [0.0, 0.0, 10.0, 4.9], None]
    assert {row["boxes"] for row in rows} == {"detected"}


def test_detected_boxes_that_tie_are_wrong_though_the_first_is_right() -> None:
    detections = json.dumps([[0, 0, 10, 10, 0.9], [0, 0, 10, 9, 0.8]])
    items = [item(n, boxes=BOXES, target=0, fields={"detections": detections}) for n in range(2)]
    scorer: Any = FakeScorer(items, {"q-0": torch.tensor([1.0, 1.0]), "q-1": torch.tensor([1.0, 0.0])})
    scores = {score.name: score for score in referring(ReferringOptions(), model=FACTS).score(scorer)}
    assert (scores["accuracy"].value, scores["accuracy"].ties, scores["accuracy"].chance) == (50, 50, 100)


def test_expressions_of_one_object_are_one_unit() -> None:
    items = [item(n, boxes=BOXES, target=0, fields={"ann_id": "7"}) for n in range(2)]
    task = referring(ReferringOptions(), model=FACTS)
    scorer: Any = FakeScorer(items, {i.id: torch.tensor([1.0, 0.0]) for i in items})
    (score,) = task.score(scorer)
    assert (score.n, score.units) == (2, 1)


@pytest.mark.parametrize(
    ("candidates", "wrong", "message"),
    [
        ("texts", {"texts": 3}, "does not say which is right"),
        ("texts", {"texts": 3, "target": 3}, "says that number 3"),
        ("texts", {"texts": 3, "images": 2, "target": 0}, "has 2 images"),
        ("images", {"images": 3, "texts": 2, "target": 0}, "has 2 texts"),
        ("boxes", {"boxes": (), "target": 0}, "has 0 boxes"),
    ],
)
def test_items_that_offer_no_such_choice_are_refused(candidates: Any, wrong: dict[str, Any], message: str) -> None:
    task = choice(ChoiceOptions(candidates=candidates), model=FACTS)
    with pytest.raises(DataError, match=message):
        task.targets([item(0, **wrong)])
