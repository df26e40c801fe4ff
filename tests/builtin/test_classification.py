"""Tasks that choose a label: their heads, losses and how images of an item come together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from renaissance.api import Batch, Joint, ModelFacts
from renaissance.builtin.classification import nlvr2, vqa
from renaissance.builtin.task_entries import ClassificationOptions, VqaOptions
from renaissance.errors import DataError, SpecError
from renaissance.resolve import resolve
from renaissance.training.train_step import TrainStep

FACTS = ModelFacts(vision=None, text=None, joint=6, fused_text=None, shared_space=False, tokenizer=None)


def pairs_of_two(batch: Batch) -> Batch:
    """Return the batch with two items of two images each, the pairs in an odd order."""
    return replace(
        batch,
        pairs=torch.tensor([[1, 0], [0, 0], [0, 1], [1, 1]]),
        slots=torch.tensor([1, 0, 0, 1]),
        items=torch.tensor([0, 0, 1, 1]),
    )


def test_soft_labels_cost_the_binary_cross_entropy_summed_over_answers() -> None:
    torch.manual_seed(0)
    task = vqa(VqaOptions(labels=("a", "b", "c")), model=FACTS)
    batch: Any = type("Labels", (), {"targets": {"vqa": torch.tensor([[0.3, 1.0, 0.0], [0.0, 0.0, 0.6]])}})
    batch.items, batch.slots = torch.arange(2), torch.zeros(2, dtype=torch.int64)
    joint = Joint(pooled=torch.randn(2, 6))
    with torch.no_grad():
        lost = task.loss(None, joint, None, batch)  # type: ignore[arg-type]  # it reads no encoded input
        p = task.predict(joint, batch.items, batch.slots).double().sigmoid()
    t = batch.targets["vqa"].double()
    naive = sum(-(t[i, k] * p[i, k].log() + (1 - t[i, k]) * (1 - p[i, k]).log()) for i in range(2) for k in range(3))
    assert float(lost.sum) == pytest.approx(float(naive), abs=1e-5)
    assert int(lost.count) == 2


def test_two_images_of_an_item_stand_side_by_side_in_the_order_of_their_slots() -> None:
    torch.manual_seed(0)
    task = nlvr2(ClassificationOptions(hidden=5), model=FACTS).eval()
    pooled = torch.randn(4, 6)  # item 1's second, item 0's first, item 0's second, item 1's first
    items, slots = torch.tensor([1, 0, 0, 1]), torch.tensor([1, 0, 1, 0])
    found = task.predict(Joint(pooled=pooled), items, slots)
    expected = torch.stack([torch.cat([pooled[1], pooled[2]]), torch.cat([pooled[3], pooled[0]])])
    torch.testing.assert_close(found, task.outer(F.gelu(task.norm(task.inner(expected)))))


@pytest.mark.parametrize("name", ["vqa", "nlvr2"])
def test_a_model_trains_on_labels(tiny_model: Callable[..., Any], tiny_batch: Callable[..., Any], name: str) -> None:
    assembly = tiny_model((name,))
    batch = tiny_batch(assembly)
    if name == "nlvr2":
        batch = pairs_of_two(batch)
    items = int(batch.items.max()) + 1
    targets = torch.rand(items, 2) if name == "vqa" else torch.arange(items) % 2
    output = TrainStep(assembly, {name: 1.0})(replace(batch, targets={name: targets}))
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in assembly.tasks.parameters())
    assert float(output.losses[name]) > 0


def test_data_without_labels_is_refused(tiny_model: Callable[..., Any], tiny_batch: Callable[..., Any]) -> None:
    assembly = tiny_model(("vqa",))
    with pytest.raises(DataError, match="'vqa' needs a label"):
        TrainStep(assembly, {"vqa": 1.0})(tiny_batch(assembly))


def test_a_single_label_is_refused() -> None:
    with pytest.raises(SpecError, match="labels"):
        resolve("tiny-vit + tiny-bert, random both", {"vqa": {"labels": ["yes"]}})
