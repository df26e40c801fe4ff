"""From an item's label, answers or number to the targets of a batch; picklable, as loader processes run it.

Letters in shapes: I items, K labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from renaissance.api import Item
from renaissance.errors import DataError, SpecError

SHOWN = 8


def known(labels: tuple[str, ...] | None, task: str) -> tuple[str, ...]:
    """Return the labels of a task.

    Raises:
        SpecError: they are not known.
    """
    if labels is None:
        raise SpecError(
            f"'{task}': its option 'labels' is null, and only a run takes them from its training items; give them here."
        )
    return labels


class Labels:
    """The number of each item's label, int64 [I]. field: which of the item's fields holds it; None: its label.

    subset: the only one of a corpus whose items these are; None: they may be of any.
    """

    def __init__(self, task: str, labels: Sequence[str], field: str | None = None, subset: str | None = None) -> None:
        self.task, self.labels, self.field, self.subset = task, tuple(labels), field, subset
        self._numbers = {label: number for number, label in enumerate(self.labels)}

    def __call__(self, items: Sequence[Item]) -> Tensor:
        """Return the targets.

        Raises:
            DataError: an item has no label, or one that is none of the task's.
        """
        return torch.tensor([self.number(item) for item in items])

    def told(self, item: Item) -> str | None:
        """Return an item's label; None where it has none."""
        return item.label if self.field is None else item.fields.get(self.field)

    def number(self, item: Item) -> int:
        """Return the number of an item's label.

        Raises:
            DataError: it has none, or one that is none of the task's, or is of another subset.
        """
        check_subset(item, self.subset, self.task)
        label = self.told(item)
        number = self._numbers.get(label) if label is not None else None
        if number is None:
            has = "no label" if label is None else f"the label '{label}'"
            known = ", ".join(self.labels[:SHOWN]) + (" ..." if len(self.labels) > SHOWN else "")
            raise DataError(
                f"{item.row}: '{item.id}' has {has}, and '{self.task}' knows: {known}. Mend the data, or the task's "
                "option 'labels'."
            )
        return number


class SoftLabels:
    """How right each answer is, float [I, K], by how many annotators gave it: 0, 0.3, 0.6, 0.9, and 1 from four on.

    These are the targets of ViLT (arXiv 2102.03334). The answer of one annotator alone is right (GQA). Answers that are
    none of the labels count for nothing.
    """

    SCORES = (0.0, 0.3, 0.6, 0.9, 1.0)

    def __init__(self, task: str, labels: Sequence[str]) -> None:
        self.task, self.labels = task, tuple(labels)
        self._numbers = {label: number for number, label in enumerate(self.labels)}

    def __call__(self, items: Sequence[Item]) -> Tensor:
        """Return the targets.

        Raises:
            DataError: an item has no answers.
        """
        targets = torch.zeros(len(items), len(self.labels))
        for row, item in enumerate(items):
            if not item.answers:
                raise DataError(f"{item.row}: '{item.id}' has no answers, which '{self.task}' learns from.")
            for answer in set(item.answers) & set(self._numbers):
                count = 4 if len(item.answers) == 1 else min(item.answers.count(answer), 4)
                targets[row, self._numbers[answer]] = self.SCORES[count]
        return targets


class Numbers:
    """The number that each item has, float [I]. field: which of its fields holds it; None: its label.

    subset: the only one of a corpus whose items these are; None: they may be of any.
    """

    def __init__(self, task: str, field: str | None = None, subset: str | None = None) -> None:
        self.task, self.field, self.subset = task, field, subset

    def __call__(self, items: Sequence[Item]) -> Tensor:
        """Return the targets.

        Raises:
            DataError: an item has no number, or one that is not finite.
        """
        return torch.tensor([self.number(item) for item in items])

    def told(self, item: Item) -> str | None:
        """Return what stands for an item's number; None where nothing does."""
        return item.label if self.field is None else item.fields.get(self.field)

    def number(self, item: Item) -> float:
        """Return an item's number.

        Raises:
            DataError: it has none, or one that is not finite, or is of another subset.
        """
        check_subset(item, self.subset, self.task)
        told = self.told(item)
        try:
            number = float(told) if told is not None else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            has = "no number" if told is None else f"'{told}'"
            where = "the label" if self.field is None else f"the field '{self.field}'"
            raise DataError(f"{item.row}: '{item.id}' has {has} as {where}, and '{self.task}' needs a number. Mend it.")
        return number


def check_subset(item: Item, subset: str | None, task: str) -> None:
    """Refuse an item of another subset of its corpus.

    Raises:
        DataError: naming both.
    """
    told = item.fields.get("subset", subset)
    if subset is not None and told != subset:
        raise DataError(
            f"{item.row}: '{item.id}' is of '{told}', and '{task}' is for '{subset}'. Prepare the folder of that alone."
        )


class Places:
    """Which candidate of each item is right, int64 [I]. candidates: "texts", "images" or "boxes"."""

    def __init__(self, task: str, candidates: str) -> None:
        self.task, self.candidates = task, candidates

    def __call__(self, items: Sequence[Item]) -> Tensor:
        """Return the targets.

        Raises:
            DataError: an item says none, or one that it has not, or has other things in several than its candidates.
        """
        return torch.tensor([self.number(item) for item in items])

    def number(self, item: Item) -> int:
        """Return which candidate is right.

        Raises:
            DataError: the item says none, or one that it has not.
        """
        counts = {"texts": len(item.texts), "images": len(item.images), "boxes": len(item.boxes)}
        count = counts[self.candidates]
        others = {"texts": ("images",), "images": ("texts",), "boxes": ("texts",)}[self.candidates]
        several = next((other for other in others if counts[other] != 1), None)
        if several is not None:
            raise DataError(
                f"{item.row}: '{item.id}' has {counts[several]} {several}, and '{self.task}' chooses one of the "
                f"{self.candidates} for a single one. Mend the data, or the task's option 'candidates'."
            )
        if item.target is None or not 0 <= item.target < count:
            says = "does not say which is right" if item.target is None else f"says that number {item.target} is right"
            raise DataError(
                f"{item.row}: '{item.id}' has {count} {self.candidates} to choose from, and {says}. Mend the data."
            )
        return item.target
