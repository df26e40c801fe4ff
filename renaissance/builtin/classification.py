"""Labels and numbers for images with a text: questions (VQA), two images (NLVR2), hypotheses, and users' own tasks.

Letters in shapes: P pairs, I items, S images of an item, D width of a pooled vector, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.api import Batch, Encoded, Item, ItemScorer, Joint, ModelFacts, Pairs, Score, TaskLoss
from renaissance.builtin.downstream_options import (
    EntailmentOptions,
    Nlvr2Options,
    OwnLabels,
    VqaOptions,
)
from renaissance.builtin.goals import Goal, GoalHead, consistency, one_label, soft_answers
from renaissance.builtin.labels import Labels, SoftLabels, known
from renaissance.errors import DataError
from renaissance.toolkit.attention import initialise
from renaissance.toolkit.metrics import finite


class JointHead(GoalHead):
    """A two-layer MLP over the pooled vectors of an item's images with its text, one beside the other.

    name: the task, whose targets are `batch.targets[name]`. The head is the classifier of ViLT (arXiv 2102.03334).
    """

    regions = paired = False

    def __init__(self, goal: Goal, *, model: ModelFacts, name: str, slots: int = 1, hidden: int | None = None) -> None:
        super().__init__()
        assert model.joint is not None
        self.goal, self.name, self.slots = goal, name, slots
        hidden = hidden or 2 * model.joint
        self.inner = nn.Linear(slots * model.joint, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.outer = nn.Linear(hidden, goal.outputs)
        initialise(self)

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> Pairs:
        """Return the pairs of the batch: the text of each item with each of its images.

        Raises:
            DataError: an item has not one text and as many images as the task reads.
        """
        check_slots(batch, self.slots, self.name)
        return Pairs(encoded.vision, encoded.text, batch.pairs, frozenset({"pooled"}), batch.slots)

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        """Return the loss summed over the items.

        Raises:
            DataError: the batch has no labels for this task.
        """
        assert joint is not None
        return goal_loss(self.goal, self.name, self.predict(joint, batch.items, batch.slots), batch)

    def decide(self, encoded: Encoded, joint: Joint | None, batch: Batch) -> list[Tensor]:
        """Return the outputs fp32 [K] of each item."""
        assert joint is not None
        return list(self.predict(joint, batch.items, batch.slots))

    def score(self, scorer: ItemScorer) -> list[Score]:
        """Return the scores; none where no item says what is right."""
        return self.goal.judged(scorer.items, outputs_of(scorer, self.name))

    def submission(self, scorer: ItemScorer) -> list[Mapping[str, Any]]:
        """Return the row of each item."""
        return [self.goal.row(*pair) for pair in zip(scorer.items, outputs_of(scorer, self.name), strict=True)]

    def predict(self, joint: Joint, items: Tensor, slots: Tensor) -> Tensor:
        """Return outputs fp32 [I, K] of the items in rising order; items and slots int64 [P] say what each pair is."""
        assert joint.pooled is not None
        order = (items * self.slots + slots).argsort()
        side_by_side = joint.pooled[order].reshape(-1, self.slots * joint.pooled.shape[-1])
        return self.outer(F.gelu(self.norm(self.inner(side_by_side)))).float()  # type: ignore[no-any-return]  # nn.Module.__call__


def goal_loss(goal: Goal, name: str, outputs: Tensor, batch: Batch) -> TaskLoss:
    """Return the loss of outputs [I, K] summed over the items of a batch.

    Raises:
        DataError: the batch has no targets for this task.
    """
    targets = batch.targets.get(name)
    if targets is None:
        raise DataError(f"The task '{name}' needs a label for each item, and the data has none. Prepare it.")
    loss, logged = goal.loss(outputs, targets)
    count = torch.tensor(len(outputs), device=outputs.device)
    return TaskLoss(loss, count, metrics={key: (value, count) for key, value in logged.items()})


def outputs_of(scorer: ItemScorer, name: str) -> Tensor:
    """Return the outputs fp32 [I, K] of a task for all items.

    Raises:
        NonFiniteError: one is NaN or infinite.
    """
    return finite(torch.stack(list(scorer.decisions(name))), what=name)


def check_slots(batch: Batch, slots: int, name: str) -> None:
    """Refuse items that have not one text and as many images as a task reads.

    Raises:
        DataError: naming the first of them.
    """
    counts = batch.items.bincount()
    whole = bool((batch.pairs >= 0).all())
    if whole and bool((counts == slots).all()) and int(batch.slots.max()) == slots - 1:
        return
    odd = int((counts != slots).int().argmax())
    which = f"'{batch.ids[odd]}'" if odd < len(batch.ids) else f"item {odd} of a batch"
    images = "an image" if slots == 1 else f"{slots} images"
    raise DataError(f"{which} does not fit '{name}', which reads {images} with one text. Choose a task that fits.")


# --- the tasks ------------------------------------------------------------------------------------------------------


def vqa(options: VqaOptions, *, model: ModelFacts) -> JointHead:
    """Return the task of answering questions about an image; several answers can be right, each to a degree."""
    goal = soft_answers(SoftLabels("vqa", known(options.labels, "vqa")))
    return JointHead(goal, model=model, name="vqa", hidden=options.hidden)


def nlvr2(options: Nlvr2Options, *, model: ModelFacts) -> JointHead:
    """Return the task of telling whether a sentence is true of two images."""
    targets = Labels("nlvr2", options.labels)

    def row(item: Item, output: Tensor) -> dict[str, Any]:
        identifier = item.fields.get("identifier", item.id)
        return {"identifier": identifier, "prediction": targets.labels[int(output.argmax())]}

    goal = one_label(targets, consistency, row)
    return JointHead(goal, model=model, name="nlvr2", slots=2, hidden=options.hidden)


def visual_entailment(options: EntailmentOptions, *, model: ModelFacts) -> JointHead:
    """Return the task of telling what an image says of a hypothesis: it contradicts it, leaves it open, or entails."""
    goal = one_label(Labels("visual-entailment", options.labels))
    return JointHead(goal, model=model, name="visual-entailment", hidden=options.hidden)


def classification(options: OwnLabels, *, model: ModelFacts) -> JointHead:
    """Return a task of the user's own: one label for an image with a text."""
    return _own("classification", options, model, slots=1)


def pair(options: OwnLabels, *, model: ModelFacts) -> JointHead:
    """Return a task of the user's own: one label for two images with a text."""
    return _own("pair", options, model, slots=2)


def _own(name: str, options: OwnLabels, model: ModelFacts, *, slots: int) -> JointHead:
    goal = one_label(Labels(name, known(options.labels, name), options.field))
    return JointHead(goal, model=model, name=name, slots=slots, hidden=options.hidden)
