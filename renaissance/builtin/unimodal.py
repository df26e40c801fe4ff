"""Labels for images alone and for texts alone: CIFAR-10, GLUE.

Letters in shapes: V images or T texts (B either), I items, W width of a vector, K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from renaissance.api import Batch, Encoded, Item, ItemScorer, Joint, Modality, ModelFacts, Pairs, Score, TaskLoss
from renaissance.builtin.classification import goal_loss, outputs_of
from renaissance.builtin.downstream_options import GLUE_LABELS, ImageClassificationOptions, TextClassificationOptions
from renaissance.builtin.goals import Goal, GoalHead, accuracy_by_item, binary, classes, one_label, one_number
from renaissance.builtin.labels import Labels, Numbers, known
from renaissance.errors import DataError
from renaissance.toolkit.attention import initialise

TEXTS = "text-classification"
IMAGES = "image-classification"


class UnimodalHead(GoalHead):
    """A linear layer over the vector of each item's image, or of its text (two texts are tokenized as one pair)."""

    slots, regions = 1, False

    def __init__(self, goal: Goal, *, model: ModelFacts, name: str, modality: Modality) -> None:
        super().__init__()
        width = model.vision if modality == "vision" else model.text
        assert width is not None
        self.goal, self.name, self.modality = goal, name, modality
        self.paired = modality == "text"
        self.head = nn.Linear(width, goal.outputs)
        initialise(self)

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> None:
        """Nothing is fused."""

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        """Return the loss summed over the items.

        Raises:
            DataError: the batch has no labels for this task.
        """
        return goal_loss(self.goal, self.name, self.predict(encoded, batch), batch)

    def decide(self, encoded: Encoded, joint: Joint | None, batch: Batch) -> list[Tensor]:
        """Return the outputs fp32 [K] of each item."""
        return list(self.predict(encoded, batch))

    def predict(self, encoded: Encoded, batch: Batch) -> Tensor:
        """Return outputs fp32 [I, K] of the items in rising order.

        Raises:
            DataError: an item has not one image, or not one text.
        """
        places = batch.pairs[batch.items.argsort(), 0 if self.modality == "vision" else 1]  # [I]
        if bool((places < 0).any()) or bool((batch.items.bincount() != 1).any()):
            what = "an image" if self.modality == "vision" else "a text, or two,"
            raise DataError(
                f"'{self.name}' reads {what} of each item, and some have none or more. Choose another task."
            )
        features = encoded.vision if self.modality == "vision" else encoded.text
        vectors = encoded.represent(features, self.modality)  # [B, W]
        return self.head(vectors[places]).float()  # type: ignore[no-any-return]  # nn.Module.__call__

    def score(self, scorer: ItemScorer) -> list[Score]:
        """Return the scores; none where no item says what is right."""
        return self.goal.judged(scorer.items, outputs_of(scorer, self.name))

    def submission(self, scorer: ItemScorer) -> list[Mapping[str, Any]]:
        """Return the row of each item."""
        return [self.goal.row(*pair) for pair in zip(scorer.items, outputs_of(scorer, self.name), strict=True)]


def image_classification(options: ImageClassificationOptions, *, model: ModelFacts) -> UnimodalHead:
    """Return the task of choosing the class of an image."""
    targets = Labels(IMAGES, known(options.labels, IMAGES))
    return UnimodalHead(one_label(targets, classes), model=model, name=IMAGES, modality="vision")


def text_classification(options: TextClassificationOptions, *, model: ModelFacts) -> UnimodalHead:
    """Return the task of choosing the label of a text, or of two; that of GLUE's STS-B is a number."""
    return UnimodalHead(_text_goal(options), model=model, name=TEXTS, modality="text")


def _text_goal(options: TextClassificationOptions) -> Goal:
    if options.subset == "stsb":
        return one_number(
            Numbers(TEXTS, subset="stsb"),
            explained=False,
            row=lambda item, output: {**_index(item), "prediction": float(output)},
        )
    labels = known(options.labels, TEXTS) if options.subset is None else GLUE_LABELS[options.subset]
    targets = Labels(TEXTS, labels, subset=options.subset)
    measures = {"cola": binary("Matthews correlation"), "mrpc": binary("F1"), "qqp": binary("F1")}
    scores = measures.get(options.subset or "", accuracy_by_item)
    return one_label(targets, scores, lambda item, output: {**_index(item), "prediction": labels[int(output.argmax())]})


def _index(item: Item) -> dict[str, Any]:
    number = item.id.rpartition("-")[2]
    return {"index": int(number) if number.isdecimal() else item.id}
