"""From an item's label or answers to the targets of a batch; picklable, as loader processes run it.

Letters in shapes: I items, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from renaissance.api import Item
from renaissance.errors import DataError

SHOWN = 8


class Labels:
    """The number of each item's label, int64 [I]."""

    def __init__(self, task: str, labels: Sequence[str]) -> None:
        self.task, self.labels = task, tuple(labels)
        self._numbers = {label: number for number, label in enumerate(self.labels)}

    def __call__(self, items: Sequence[Item]) -> Tensor:
        """Return the targets.

        Raises:
            DataError: an item has no label, or one that is none of the task's.
        """
        return torch.tensor([self.number(item) for item in items])

    def number(self, item: Item) -> int:
        """Return the number of an item's label.

        Raises:
            DataError: it has none, or one that is none of the task's.
        """
        number = self._numbers.get(item.label) if item.label is not None else None
        if number is None:
            has = "no label" if item.label is None else f"the label '{item.label}'"
            known = ", ".join(self.labels[:SHOWN]) + (" ..." if len(self.labels) > SHOWN else "")
            raise DataError(
                f"{item.row}: '{item.id}' has {has}, and '{self.task}' knows: {known}. Mend the data, or the task's "
                "option 'labels'."
            )
        return number


class SoftLabels:
    """How right each answer is, float [I, K], by how many annotators gave it: 0, 0.3, 0.6, 0.9, and 1 from four on.

    These are the targets of ViLT (arXiv 2102.03334). Answers that are none of the labels count for nothing.
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
                targets[row, self._numbers[answer]] = self.SCORES[min(item.answers.count(answer), 4)]
        return targets
