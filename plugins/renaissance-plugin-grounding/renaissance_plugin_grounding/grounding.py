"""The task: a box for a phrase, from the tokens of the image after their fusion with the phrase.

Letters in shapes: P pairs, N image tokens, I items, D width of the fused stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.api import Batch, Encoded, Features, Item, ItemScorer, Joint, ModelFacts, Pairs, Score, TaskLoss, Views
from renaissance.errors import DataError
from renaissance.toolkit.attention import Attention
from renaissance.toolkit.metrics import accuracy_score, finite, numbered
from renaissance_plugin_grounding.boxes import TargetBoxes, best_constant, meant, overlaps, pixels, size_of
from renaissance_plugin_grounding.entries import GroundingOptions

ENOUGH = 0.5  # the IoU from which on a box counts as found


class Grounding(nn.Module):
    """A learned query attends to the fused image tokens; three linear layers and a sigmoid make a box of its finding.

    A box is (centre x, centre y, width, height), each from 0 to 1. Of DETR's queries and decoder one query is left, as
    one phrase means one thing; the tokens have their positions from the tower, and the phrase from the fusion.
    """

    name = "grounding"
    slots, regions, paired = 1, False, False
    targets = TargetBoxes()

    def __init__(self, options: GroundingOptions, *, model: ModelFacts) -> None:
        super().__init__()
        assert model.fused_text is not None
        self.options = options
        width = model.fused_text  # both fused streams have it
        hidden = options.hidden or width
        self.query = nn.Parameter(torch.empty(1, 1, width))
        self.attention = Attention(width, 1)
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.box = nn.Linear(hidden, 4)
        nn.init.normal_(self.query, std=0.02)

    def views(self, batch: Batch) -> Views:
        """A phrase is found in plain inputs."""
        return Views()

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> Pairs:
        """Return the pairs of the batch: the phrase of each item with its image.

        Raises:
            DataError: an item has not one image and one text.
        """
        if bool((batch.pairs < 0).any()) or bool((batch.items.bincount() != 1).any()):
            raise DataError("'grounding' reads one phrase of one image, and some items have other things. Mend them.")
        return Pairs(encoded.vision, encoded.text, batch.pairs, frozenset({"vision"}))

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        """Return L1 and 1 - GIoU of the boxes, weighted, summed over the items.

        Raises:
            DataError: the batch has no boxes for this task, or its images are augmented: boxes lie in whole pictures.
        """
        targets = batch.targets.get(self.name)
        if targets is None:
            raise DataError("'grounding' needs the box that each phrase means, and the data do not say. Prepare it.")
        if not torch.equal(batch.view_keys, batch.image_keys):
            raise DataError(
                "'grounding' learns where things are in the whole picture, and augmentation moves them. Leave "
                "'augmentation' out of the recipe."
            )
        boxes = torch.stack(self.decide(encoded, joint, batch))
        iou, giou = overlaps(boxes, targets)
        loss = self.options.l1 * F.l1_loss(boxes, targets, reduction="sum") + self.options.giou * (1 - giou).sum()
        count = torch.tensor(len(boxes), device=boxes.device)
        found = (iou.detach() >= ENOUGH).sum()
        return TaskLoss(loss, count, metrics={"accuracy": (found, count), "IoU": (iou.detach().sum(), count)})

    def decide(self, encoded: Encoded, joint: Joint | None, batch: Batch) -> list[Tensor]:
        """Return the box fp32 [4] of each item, in rising order."""
        assert joint is not None
        assert joint.vision is not None
        return list(self.predict(joint.vision)[batch.items.argsort()])

    def predict(self, vision: Features) -> Tensor:
        """Return the boxes fp32 [P, 4] of fused image tokens [P, N, D]."""
        found = self.attention(self.query.expand(vision.tokens.shape[0], -1, -1), vision.tokens, vision.mask)
        hidden = F.relu(self.second(F.relu(self.first(found.squeeze(1)))))
        return self.box(hidden).float().sigmoid()  # type: ignore[no-any-return]  # nn.Module.__call__

    def score(self, scorer: ItemScorer) -> list[Score]:
        """Return how often IoU is 0.5 or more, and the mean IoU; nothing where no item says what is meant.

        Chance is what the best single box for all items gives. Items are tied whose boxes are the same though their
        images or phrases differ.

        Raises:
            NonFiniteError: a box is NaN or infinite.
        """
        items, boxes = scorer.items, self._boxes(scorer)
        if all(meant(item) is None for item in items):
            return []
        targets = self.targets(items)
        iou, _ = overlaps(boxes.double(), targets.double())
        chances = best_constant(targets.double(), enough=ENOUGH)
        units = numbered([f"{item.images[0].name}\n{self.targets.told(item)}" for item in items])
        ties = _tied(items, boxes)
        return [
            accuracy_score("accuracy", (iou >= ENOUGH).double(), units=units, chance=chances[0], ties=ties),
            accuracy_score("mean IoU", iou, units=units, chance=chances[1], ties=ties),
        ]

    def submission(self, scorer: ItemScorer) -> list[Mapping[str, Any]]:
        """Return the box of each item as left, top, width, height in pixels of its image."""
        found = zip(scorer.items, self._boxes(scorer).tolist(), strict=True)
        return [{"id": item.id, "box": list(pixels(box, size_of(item)))} for item, box in found]

    def _boxes(self, scorer: ItemScorer) -> Tensor:
        return finite(torch.stack(list(scorer.decisions(self.name))), what=self.name)


def _tied(items: Sequence[Item], boxes: Tensor) -> float:
    """Return the share of the items whose box, bit for bit, is also that of another image or phrase."""
    inputs: dict[tuple[float, ...], set[tuple[str, str]]] = {}
    keys = [tuple(box) for box in boxes.tolist()]
    for item, key in zip(items, keys, strict=True):
        inputs.setdefault(key, set()).add((item.images[0].name, item.texts[0]))
    return sum(len(inputs[key]) > 1 for key in keys) / len(keys)
