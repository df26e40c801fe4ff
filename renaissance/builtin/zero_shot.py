"""Classifying images without training, by ITC: each class is the mean of sentences with its name.

Letters in shapes: I items, K classes, S sentences of a class, W width of the shared space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.api import ItemScorer, ModelFacts, Score
from renaissance.builtin.downstream_options import ZeroShotOptions
from renaissance.builtin.goals import class_scores, item_units
from renaissance.builtin.labels import Labels
from renaissance.errors import DataError
from renaissance.toolkit.metrics import finite

NAME = "zero-shot-classification"


class ZeroShotClassification(nn.Module):
    """The class of an image is the one whose vector is nearest: the mean of its sentences' unit vectors, normalised."""

    def __init__(self, options: ZeroShotOptions, *, model: ModelFacts) -> None:
        super().__init__()
        self.options = options

    def score(self, scorer: ItemScorer) -> list[Score]:
        """Return acc@1, acc@5 of more than five classes, and mean per-class recall; none where no item has a label.

        Raises:
            NonFiniteError: a vector is NaN or infinite.
        """
        if all(item.label is None for item in scorer.items):
            return []
        labels = self.labels(scorer)
        numbers = Labels(NAME, labels)(scorer.items)
        return class_scores(self._similarity(scorer, labels), numbers, item_units(scorer.items))

    def submission(self, scorer: ItemScorer) -> list[Mapping[str, Any]]:
        """Return the nearest class of each item."""
        labels = self.labels(scorer)
        nearest = self._similarity(scorer, labels).argmax(1).tolist()
        return [{"id": item.id, "label": labels[number]} for item, number in zip(scorer.items, nearest, strict=True)]

    def labels(self, scorer: ItemScorer) -> tuple[str, ...]:
        """Return the classes: those of the options, or all labels of the split.

        Raises:
            DataError: the split has fewer than two, and the options say none.
        """
        if self.options.labels is not None:
            return self.options.labels
        found = sorted({item.label for item in scorer.items if item.label is not None})
        if len(found) < 2:
            raise DataError(f"'{NAME}' needs at least two classes, and the split has {len(found)}. Give its 'labels'.")
        return tuple(found)

    def _similarity(self, scorer: ItemScorer, labels: tuple[str, ...]) -> Tensor:
        """Return dot products fp32 [I, K] of images and classes."""
        names = self.options.names or tuple(label.replace("_", " ") for label in labels)
        sentences = [template.replace("{}", name) for name in names for template in self.options.templates]
        vectors = finite(scorer.text_vectors(sentences), what=NAME)
        by_class = vectors.reshape(len(labels), -1, vectors.shape[-1])  # [K, S, W]
        classes = F.normalize(by_class.mean(1), dim=-1)  # [K, W]
        return finite(scorer.image_vectors(), what=NAME) @ classes.T
