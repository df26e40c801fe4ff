"""What measuring takes and gives.

Letters in shapes: V distinct images of a batch, T distinct texts, P pairs of an image and a text, B any of the three,
N tokens of a vision tower, L tokens of a text, D width, C most captions that one image has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol

from renaissance.api.inputs import Item

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """What a figure is the mean of: a value in percent for each unit that is resampled, an image or an item.

    units int64 [U]: the numbers of the units, rising. values, weights float [U]: sum(weights * values) is the figure,
    and the weights sum to 1. samples: the SHA-256 of the samples that the numbers count, in their order; "" where they
    are not known.
    """

    units: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    samples: str = ""

    @property
    def mean(self) -> float:
        """The figure."""
        return float((self.weights * self.values).sum())

    def pairs_with(self, other: Outcomes) -> bool:
        """Return whether another has the same units of the same samples in the same order."""
        same = self.units.shape == other.units.shape and bool((self.units == other.units).all())
        return same and self.samples == other.samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One measured figure, in percent: its 95% bootstrap interval, what chance gives, and how often scores tied.

    n counts the decisions; units counts what was resampled (images, for captions).
    blind: the same figure where a modality says nothing, None where it was not measured. "vision": the images of this
    model are those of other samples, so this is what its texts give alone; "text": the texts are; "twin": of a model
    that was trained without one of the two.
    outcomes: the values of the units of which it is the mean; None where it is no mean over units, such as F1.
    """

    name: str
    value: float
    low: float
    high: float
    chance: float
    n: int
    units: int
    ties: float = 0.0
    blind: Mapping[str, float] | None = None
    outcomes: Outcomes | None = field(default=None, compare=False, repr=False)

    def row(self) -> dict[str, Any]:
        """Return it JSON-able: all but the outcomes."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "outcomes"}


class Scorer(Protocol):
    """The one way in which tasks measure a model on a split: scores of images against texts.

    Each distinct image and text of the split is encoded once, however many tasks ask.
    """

    @property
    def positives(self) -> Tensor:
        """Bool [V, T]: which distinct texts are captions of which images."""
        ...

    def similarity(self) -> Tensor:
        """Dot products of ITC's unit vectors, fp32 [V, T]."""
        ...

    def match(self, index: Tensor, by: str = "itm") -> Tensor:
        """Logits fp32 [P] of the (image, text) pairs in index int64 [P, 2], by ITM's head or another on pooled vectors.

        Raises:
            CapabilityError: the model was not trained for it.
        """
        ...


class MeasuredTask(Protocol):
    """A task that can be measured."""

    def score(self, scorer: Scorer) -> Sequence[Score]:
        """Return the scores of a model on one split."""
        ...


class ItemScorer(Protocol):
    """The way in which tasks on items measure a model: one prediction an item, in the order of `items`."""

    @property
    def items(self) -> Sequence[Item]:
        """The items of the split."""
        ...

    def decisions(self, task: str) -> Sequence[Tensor]:
        """What `ItemTask.decide` gives for each item, fp32 on the CPU."""
        ...

    def matches(self, *, regions: bool = False, by: Literal["itm", "itc"] | None = None) -> Sequence[Tensor]:
        """Scores fp32 [images, texts] of each item: how well each of its images fits each of its texts.

        ITM logits where the model has the task `itm`, else dot products of ITC's unit vectors, or as `by` says.
        regions: the item's boxes, cropped, in place of its images, where it has boxes.

        Raises:
            CapabilityError: the model was not trained for it.
        """
        ...

    def on(self, items: Sequence[Item]) -> ItemScorer:
        """Return the scorer of the same model on other items."""
        ...

    def image_vectors(self) -> Tensor:
        """ITC's unit vectors fp32 [items, W] of the first image of each item.

        Raises:
            CapabilityError: the model was not trained for ITC.
        """
        ...

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """ITC's unit vectors fp32 [texts, W] of texts, which need not be those of the items.

        Raises:
            CapabilityError: the model was not trained for ITC.
        """
        ...


class MeasuredItemTask(Protocol):
    """A task on items that can be measured."""

    def score(self, scorer: ItemScorer) -> Sequence[Score]:
        """Return the scores of a model on one split.

        Raises:
            NonFiniteError: a prediction is NaN or infinite.
        """
        ...

    def submission(self, scorer: ItemScorer) -> Sequence[Mapping[str, Any]]:
        """Return the rows of the prediction file, in the form that the benchmark publishes."""
        ...
