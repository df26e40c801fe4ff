"""A sound task on items, and what is wrong with those that the kit must reject."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from renaissance.api import Batch, Item, Joint, Modality, ModelFacts, Options, Score, TaskEntry, TaskLoss, Views
from renaissance.builtin.itc import ImageTextContrast
from renaissance.builtin.itm import ImageTextMatching
from renaissance.errors import DataError
from renaissance.toolkit.metrics import finite
from tests.testing.broken_modules import leftover

LABELS = ("no", "yes")


class LabelOptions(Options):
    """Options of the task."""

    fault: str = Field("", description="What is wrong with it.")


def numbers(items: Sequence[Item]) -> Tensor:
    """Return the numbers of the labels of items."""
    return torch.tensor([LABELS.index(str(item.label)) for item in items])


def refused(items: Sequence[Item]) -> Tensor:
    """Refuse all items."""
    raise DataError("No item is good enough.")


class Label(nn.Module):
    """One of two labels for an image, or one fault."""

    name, slots, regions, paired, labels = "label", 1, False, False, LABELS

    def __init__(self, options: LabelOptions, *, model: ModelFacts) -> None:
        super().__init__()
        assert model.vision is not None
        self.fault = options.fault
        self.norm = nn.LayerNorm(model.vision)
        self.head = nn.Linear(model.vision, len(LABELS))
        if self.fault == "learns":
            leftover(self)

    @property
    def targets(self) -> Callable[[Sequence[Item]], Tensor]:
        return refused if self.fault == "refuses" else numbers

    def views(self, batch: Batch) -> Views:
        return Views()

    def pairs(self, encoded: Any, batch: Batch, published: Any) -> None:
        return None

    def logits(self, encoded: Any, batch: Batch) -> Tensor:
        images = batch.pairs[:, 0][batch.items.argsort()]
        logits: Tensor = self.head(self.norm(encoded.represent(encoded.vision, "vision")))[images]
        return logits - logits.mean(0) if self.fault == "items apart" else logits

    def loss(self, encoded: Any, joint: Any, pairs: Any, batch: Batch) -> TaskLoss:
        losses = F.cross_entropy(self.logits(encoded, batch), batch.targets["label"], reduction="none")
        weights = torch.arange(len(losses)) if self.fault == "batch order" else torch.ones(len(losses))
        total = (losses * weights).sum()
        if self.fault == "batch size":
            total = total / len(losses)
        if self.fault == "loss":
            total = total * float("nan")
        return TaskLoss(total, torch.tensor(len(losses)))

    def decide(self, encoded: Any, joint: Any, batch: Batch) -> list[Tensor]:
        return list(self.logits(encoded, batch))

    def score(self, scorer: Any) -> list[Score]:
        outputs = torch.stack(list(scorer.decisions(self.name)))
        if self.fault != "nan":
            finite(outputs, what=self.name)
        right = outputs.gather(1, numbers(scorer.items).unsqueeze(1)).squeeze(1)
        others = outputs.scatter(1, numbers(scorer.items).unsqueeze(1), float("-inf")).amax(1)
        won = right >= others if self.fault == "oracle" else right > others
        value = 100 * float(won.double().mean())
        return [Score(name="accuracy", value=value, low=value, high=value, chance=50.0, n=len(won), units=len(won))]

    def submission(self, scorer: Any) -> list[Any]:
        return []


def entry(fault: str = "") -> TaskEntry:
    """Return the entry of a task with one fault."""
    return TaskEntry(
        name="label",
        summary="One of two labels",
        factory="tests.testing.broken_tasks:Label",
        options=LabelOptions,
        tiny={"fault": fault},
        data="items",
    )


class MatchingByBatch(ImageTextMatching):
    """ITM that compares a pair with those beside it."""

    def predict(self, joint: Joint) -> Tensor:
        logits = super().predict(joint)
        return logits - logits.mean()


class ContrastByPlace(ImageTextContrast):
    """ITC that weighs images by their place in the batch."""

    def embed(self, vectors: Tensor, modality: Modality) -> Tensor:
        return super().embed(vectors, modality) * torch.arange(1, len(vectors) + 1).unsqueeze(1)


FAULTS = ("loss", "learns", "batch order", "batch size", "oracle", "nan", "items apart")
