"""Choosing the right one of an item's candidates: boxes that an expression may refer to, and users' own choices.

Letters in shapes: P pairs, I items, C most candidates of an item, D width of a pooled vector.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.api import Batch, Box, Encoded, Item, ItemScorer, Joint, ModelFacts, Pairs, Score, TaskLoss, Views
from renaissance.builtin.downstream_options import ChoiceOptions, ReferringOptions
from renaissance.builtin.goals import image_units
from renaissance.builtin.labels import Places
from renaissance.errors import DataError
from renaissance.toolkit.attention import initialise
from renaissance.toolkit.metrics import accuracy_score, chosen, finite, numbered

DETECTIONS = "detections"  # the field with the boxes that a detector found: JSON [[x, y, width, height, score], ...]
ENOUGH = 0.5  # the IoU from which on a box counts as found
Judge = Callable[[ItemScorer], list[Score]]
Rows = Callable[[ItemScorer], list[Mapping[str, Any]]]


class Choice(nn.Module):
    """One logit for each candidate, from the pooled vector of its pair; softmax over the candidates of an item.

    regions: the candidates are boxes of an image, cropped. judge measures; rows are those of the prediction file.
    """

    slots, paired = 1, False

    def __init__(
        self,
        targets: Places,
        judge: Judge,
        rows: Rows,
        *,
        model: ModelFacts,
        name: str,
        hidden: int | None,
    ) -> None:
        super().__init__()
        assert model.joint is not None
        self.name, self.targets, self.judge, self.rows = name, targets, judge, rows
        self.candidates = targets.candidates
        self.regions = targets.candidates == "boxes"
        hidden = hidden or 2 * model.joint
        self.inner = nn.Linear(model.joint, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.outer = nn.Linear(hidden, 1)
        initialise(self)

    def views(self, batch: Batch) -> Views:
        """Candidates are told apart by plain inputs."""
        return Views()

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> Pairs:
        """Return the pairs of the batch: each candidate with what it is a candidate for.

        Raises:
            DataError: an item has images without a text, or a text without an image.
        """
        if bool((batch.pairs < 0).any()):
            raise DataError(f"'{self.name}' compares images with texts, and some items have only one of them.")
        return Pairs(encoded.vision, encoded.text, batch.pairs, frozenset({"pooled"}))

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        """Return the cross-entropy over the candidates of each item, summed over the items.

        Raises:
            DataError: the batch has no targets for this task.
        """
        targets = batch.targets.get(self.name)
        if targets is None:
            raise DataError(
                f"'{self.name}' needs to know which candidate is right, and the data do not say. Prepare it."
            )
        logits = side_by_side(self.decide(encoded, joint, batch))
        count = torch.tensor(len(logits), device=logits.device)
        right = (logits.argmax(1) == targets).sum()
        loss = F.cross_entropy(logits, targets, reduction="sum")
        return TaskLoss(loss, count, metrics={"accuracy": (right, count)})

    def decide(self, encoded: Encoded, joint: Joint | None, batch: Batch) -> list[Tensor]:
        """Return the logit fp32 of each candidate, for each item in rising order."""
        assert joint is not None
        assert joint.pooled is not None
        logits = self.outer(F.gelu(self.norm(self.inner(joint.pooled)))).squeeze(-1).float()  # [P]
        order = batch.items.argsort(stable=True)
        return list(torch.split(logits[order], batch.items.bincount().tolist()))

    def probabilities(self, output: Tensor) -> Tensor:
        """Return the probability of each candidate of an item, from its logits [C]."""
        return output.softmax(-1)

    def check(self, items: Sequence[Item]) -> None:
        """Check that items have candidates, and one thing that these are candidates for.

        Raises:
            DataError: an item has not.
        """
        self.targets([replace(item, target=0) for item in items])

    def score(self, scorer: ItemScorer) -> list[Score]:
        """Return the scores; none where no item says what is right.

        Raises:
            NonFiniteError: a logit is NaN or infinite.
        """
        logits_of(scorer, self.name)
        return [] if all(item.target is None for item in scorer.items) else self.judge(scorer)

    def submission(self, scorer: ItemScorer) -> list[Mapping[str, Any]]:
        """Return the row of each item."""
        return self.rows(scorer)


def logits_of(scorer: ItemScorer, name: str) -> Tensor:
    """Return the logits fp32 [I, C] of the candidates of all items, -inf where an item has fewer.

    Raises:
        NonFiniteError: a logit is NaN or infinite.
    """
    logits = list(scorer.decisions(name))
    finite(torch.cat(logits), what=name)
    return side_by_side(logits)


def side_by_side(logits: Sequence[Tensor]) -> Tensor:
    """Return logits [I, C], -inf where an item has fewer candidates: they take no part in a softmax."""
    most = max(len(row) for row in logits)
    return torch.stack([F.pad(row, (0, most - len(row)), value=float("-inf")) for row in logits])


def overlap(one: Box, other: Box) -> float:
    """Return the intersection of two boxes over their union (IoU)."""
    (x, y, width, height), (u, v, w, h) = one, other
    across = max(0.0, min(x + width, u + w) - max(x, u))
    down = max(0.0, min(y + height, v + h) - max(y, v))
    union = width * height + w * h - across * down
    return across * down / union if union > 0 else 0.0


# --- the tasks ------------------------------------------------------------------------------------------------------


def referring(options: ReferringOptions, *, model: ModelFacts) -> Choice:
    """Return the task of telling which box of an image an expression refers to.

    Among the boxes of the image that are given this is `gt-choice accuracy`, no figure of RefCOCO; where the items have
    detected boxes, `accuracy` is how often the chosen one of these is at IoU 0.5 or more with the box that is meant.
    """
    name = "referring"
    targets = Places(name, "boxes")

    def judge(scorer: ItemScorer) -> list[Score]:
        items, logits = scorer.items, logits_of(scorer, name)
        found = [_placed("gt-choice accuracy", logits, targets(items), object_units(items))]
        return [*found, _by_overlap(scorer, name)] if _are_detected(items) else found

    def rows(scorer: ItemScorer) -> list[Mapping[str, Any]]:
        if not _are_detected(scorer.items):
            best = logits_of(scorer, name).argmax(1).tolist()
            return [
                {"id": item.id, "box": list(item.boxes[number]), "boxes": "given"}
                for item, number in zip(scorer.items, best, strict=True)
            ]
        chosen_boxes = _chosen_boxes(scorer, name)
        return [
            {"id": item.id, "box": box and list(box), "boxes": "detected"}
            for item, (box, _) in zip(scorer.items, chosen_boxes, strict=True)
        ]

    return Choice(targets, judge, rows, model=model, name=name, hidden=options.hidden)


def choice(options: ChoiceOptions, *, model: ModelFacts) -> Choice:
    """Return a task of the user's own: which of several candidates is right."""
    name = "choice"
    targets = Places(name, options.candidates)

    def judge(scorer: ItemScorer) -> list[Score]:
        items = scorer.items
        return [_placed("accuracy", logits_of(scorer, name), targets(items), image_units(items))]

    def rows(scorer: ItemScorer) -> list[Mapping[str, Any]]:
        best = logits_of(scorer, name).argmax(1).tolist()
        return [{"id": item.id, "choice": number} for item, number in zip(scorer.items, best, strict=True)]

    return Choice(targets, judge, rows, model=model, name=name, hidden=options.hidden)


def _placed(name: str, logits: Tensor, numbers: Tensor, units: Tensor) -> Score:
    choice, tied = chosen(logits, numbers)
    chance = 100 * float((1 / torch.isfinite(logits).sum(1)).double().mean())
    right, ties = (choice == numbers).double(), float(tied.double().mean())
    return accuracy_score(name, right, units=units, chance=chance, ties=ties)


def _are_detected(items: Sequence[Item]) -> bool:
    """Return whether the items have detected boxes.

    Raises:
        DataError: some have, and others have not.
    """
    have = [DETECTIONS in item.fields for item in items]
    if any(have) and not all(have):
        odd = items[have.index(False)]
        raise DataError(f"{odd.row}: '{odd.id}' has no detections, and others have. Prepare the data again.")
    return all(have)


def detected(item: Item) -> Item:
    """Return an item with the detected boxes as its candidates.

    Raises:
        DataError: what the item has of detections is no list of boxes.
    """
    try:
        boxes = tuple(
            (float(x), float(y), float(w), float(h)) for x, y, w, h, *_ in json.loads(item.fields[DETECTIONS])
        )
    except (ValueError, TypeError):
        raise DataError(
            f"{item.row}: the field '{DETECTIONS}' of '{item.id}' is no list of [x, y, width, height, score]. Prepare "
            "the data again."
        ) from None
    return replace(item, boxes=boxes, target=None)


def _chosen_boxes(scorer: ItemScorer, name: str) -> list[tuple[Box | None, bool]]:
    """Return the best detected box of each item, and whether others score as high; None where none was detected."""
    items = [detected(item) for item in scorer.items]
    some = [item for item in items if item.boxes]
    logits = iter(scorer.on(some).decisions(name) if some else ())
    found: list[tuple[Box | None, bool]] = []
    for item in items:
        if not item.boxes:
            found.append((None, False))
            continue
        each = finite(next(logits), what=name)
        found.append((item.boxes[int(each.argmax())], int((each == each.max()).sum()) > 1))
    return found


def _by_overlap(scorer: ItemScorer, name: str) -> Score:
    """Return how often the chosen detected box is at IoU 0.5 or more with the one that is meant; ties are wrong."""
    right, chances, ties = [], [], []
    for item, (box, tied) in zip(scorer.items, _chosen_boxes(scorer, name), strict=True):
        assert item.target is not None, "the right box is known"
        meant, boxes = item.boxes[item.target], detected(item).boxes
        right.append(box is not None and not tied and overlap(box, meant) >= ENOUGH)
        chances.append(sum(overlap(one, meant) >= ENOUGH for one in boxes) / max(1, len(boxes)))
        ties.append(tied)
    return accuracy_score(
        "accuracy",
        torch.tensor(right).double(),
        units=object_units(scorer.items),
        chance=100 * sum(chances) / len(chances),
        ties=sum(ties) / len(ties),
    )


def object_units(items: Sequence[Item]) -> Tensor:
    """Return int64 [I]: expressions of the same object are one unit."""
    return numbered([_object(item) for item in items])


def _object(item: Item) -> str:
    told = next((item.fields[key] for key in ("ann_id", "ref_id") if key in item.fields), None)
    place = str(item.target) if told is None else told
    return f"{item.images[0].name}\n{place}" if item.images else item.id
