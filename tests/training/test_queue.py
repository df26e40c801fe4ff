"""The queue of past outputs: what it keeps, and what a loss makes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from renaissance.training.teacher import Queue
from renaissance.training.train_step import TrainStep


def test_the_newest_rows_are_kept_newest_first() -> None:
    queue = Queue(5)
    queue.push({"a": torch.tensor([1, 2])})
    queue.push({"a": torch.tensor([3, 4])})
    assert queue.rows["a"].tolist() == [3, 4, 1, 2]
    queue.push({"a": torch.tensor([5, 6])})
    assert queue.rows["a"].tolist() == [5, 6, 3, 4, 1]


def test_a_batch_larger_than_the_queue_is_cut() -> None:
    queue = Queue(2)
    queue.push({"a": torch.arange(6).view(3, 2)})
    assert queue.rows["a"].tolist() == [[0, 1], [2, 3]]


def test_rows_may_differ_in_width_and_names_in_number() -> None:
    queue = Queue(4)
    queue.push({"keys": torch.tensor([[1]]), "texts": torch.tensor([7, 8])})
    queue.push({"keys": torch.tensor([[2, 3]]), "texts": torch.tensor([9])})
    assert queue.rows["keys"].tolist() == [[2, 3], [1, 0]]
    assert queue.rows["texts"].tolist() == [9, 7, 8]


def test_what_is_kept_has_no_gradient_and_no_part_of_a_longer_tensor() -> None:
    queue = Queue(2)
    queue.push({"a": torch.ones(100, 3, requires_grad=True) * 2})
    assert not queue.rows["a"].requires_grad
    assert queue.rows["a"].untyped_storage().nbytes() == 2 * 3 * 4


def test_contrast_fills_its_queue_with_what_the_teacher_made(tiny_model: Callable[..., Any], tiny_batch: Any) -> None:
    model = tiny_model({"itc": {"width": 16, "queue": 6}})
    step = TrainStep(model, {"itc": 1.0})
    first, second = tiny_batch(model, 4), tiny_batch(model, 4, first=4)
    step(first)
    step(second)
    rows = step.momentum.queues["itc"].rows
    assert {name: tuple(value.shape) for name, value in rows.items()} == {
        "images": (6, 16), "caption_keys": (6, 2), "image_keys": (6,), "texts": (6, 16), "text_keys": (6,),
    }  # fmt: skip
    assert rows["text_keys"].tolist() == [*second.text_keys.tolist(), *first.text_keys[:2].tolist()]
    torch.testing.assert_close(rows["images"].norm(dim=1), torch.ones(6))


def test_a_queue_makes_the_task_harder_and_the_step_still_learns(
    tiny_model: Callable[..., Any], tiny_batch: Any
) -> None:
    model = tiny_model({"itc": {"width": 16, "queue": 8}})
    step = TrainStep(model, {"itc": 1.0})
    step(tiny_batch(model, 4, first=4))
    step.momentum.queues["itc"].rows = dict(step.momentum.queues["itc"].rows)
    batch = tiny_batch(model, 4)
    filled = float(step(batch).loss.detach())
    empty = float(TrainStep(model, {"itc": 1.0})(batch).loss.detach())
    assert filled > empty
    step(batch).loss.backward()
    assert model.tasks["itc"].vision_projection.linear.weight.grad.abs().sum() > 0
