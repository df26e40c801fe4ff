"""Choosing one of several labels for an item: questions (VQA), sentences about two images (NLVR2).

Letters in shapes: P pairs, I items, S images of an item, D width of a pooled vector, K labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.api import Batch, Encoded, ItemScorer, Joint, ModelFacts, Pairs, Score, TaskLoss, Views
from renaissance.builtin.labels import Labels, SoftLabels
from renaissance.builtin.task_entries import ClassificationOptions
from renaissance.errors import DataError
from renaissance.toolkit.attention import initialise
from renaissance.toolkit.metrics import accuracy_score, finite


class Classification(nn.Module):
    """A two-layer MLP over the pooled vectors of an item's images with its text, one beside the other.

    name: the task, whose labels are `batch.targets[name]`: int64 [I], or float [I, K] where `soft`. The head is the
    classifier of ViLT (arXiv 2102.03334).
    """

    regions = paired = False

    def __init__(
        self, options: ClassificationOptions, *, model: ModelFacts, name: str, slots: int = 1, soft: bool = False
    ) -> None:
        super().__init__()
        assert model.joint is not None
        self.options, self.name, self.slots, self.soft = options, name, slots, soft
        self.targets = SoftLabels(name, options.labels) if soft else Labels(name, options.labels)
        hidden = options.hidden or 2 * model.joint
        self.inner = nn.Linear(slots * model.joint, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.outer = nn.Linear(hidden, len(options.labels))
        initialise(self)

    def views(self, batch: Batch) -> Views:
        """Labels are told from plain inputs."""
        return Views()

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> Pairs:
        """Return the pairs of the batch: the text of each item with each of its images."""
        return Pairs(encoded.vision, encoded.text, batch.pairs, frozenset({"pooled"}), batch.slots)

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        """Return the cross-entropy, or for soft labels the binary one summed over the labels of an item.

        Raises:
            DataError: the batch has no labels for this task.
        """
        assert joint is not None
        targets = batch.targets.get(self.name)
        if targets is None:
            raise DataError(f"The task '{self.name}' needs a label for each item, and the data has none. Prepare it.")
        logits = self.predict(joint, batch.items, batch.slots)
        if self.soft:
            loss = F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="sum")
            gained = targets.gather(1, logits.argmax(1, keepdim=True)).sum()
        else:
            loss = F.cross_entropy(logits, targets, reduction="sum")
            gained = (logits.argmax(1) == targets).sum()
        count = torch.tensor(len(logits), device=logits.device)
        return TaskLoss(loss, count, metrics={"accuracy": (gained, count)})

    def decide(self, encoded: Encoded, joint: Joint | None, batch: Batch) -> list[Tensor]:
        """Return the logits fp32 [K] of each item."""
        assert joint is not None
        return list(self.predict(joint, batch.items, batch.slots))

    def score(self, scorer: ItemScorer) -> list[Score]:
        """Return the accuracy of the likeliest label, each item a unit."""
        logits = finite(torch.stack(list(scorer.decisions(self.name))), what=self.name)
        right = logits.argmax(1) == self.targets(scorer.items)
        ties = ((logits == logits.amax(1, keepdim=True)).sum(1) > 1).double().mean().item()
        counts = torch.bincount(self.targets(scorer.items))
        chance = 100 * float(counts.max()) / len(right)
        return [accuracy_score("accuracy", right.double(), units=torch.arange(len(right)), chance=chance, ties=ties)]

    def submission(self, scorer: ItemScorer) -> list[dict[str, Any]]:
        """Return the likeliest label of each item."""
        chosen = [self.options.labels[int(logits.argmax())] for logits in scorer.decisions(self.name)]
        return [{"id": item.id, "label": label} for item, label in zip(scorer.items, chosen, strict=True)]

    def predict(self, joint: Joint, items: Tensor, slots: Tensor) -> Tensor:
        """Return logits fp32 [I, K] of the items in rising order; items and slots int64 [P] say what each pair is."""
        assert joint.pooled is not None
        order = (items * self.slots + slots).argsort()
        side_by_side = joint.pooled[order].reshape(-1, self.slots * joint.pooled.shape[-1])
        return self.outer(F.gelu(self.norm(self.inner(side_by_side)))).float()  # type: ignore[no-any-return]  # nn.Module.__call__


def vqa(options: ClassificationOptions, *, model: ModelFacts) -> Classification:
    """Return the task of answering questions about an image; several answers can be right, each to a degree."""
    return Classification(options, model=model, name="vqa", soft=True)


def nlvr2(options: ClassificationOptions, *, model: ModelFacts) -> Classification:
    """Return the task of telling whether a sentence is true of two images."""
    return Classification(options, model=model, name="nlvr2", slots=2)
