"""Blind figures: what a model scores when one modality tells it nothing, as it is that of another sample.

Letters: V distinct images, T distinct texts, P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from renaissance.api import Box, Item, Modality, Score, Scorer
from renaissance.data.blind import blinded
from renaissance.data.records import ImageSource
from renaissance.errors import DataError

SEED = 0
TRIES = 16

Figures = Mapping[str, Sequence[Score]]


def with_figures(scores: Figures, kind: str, others: Figures) -> dict[str, tuple[Score, ...]]:
    """Return the scores of each task with the values of `others`, by task and name, as blind figures of a kind."""
    found: dict[str, tuple[Score, ...]] = {}
    for task, own in scores.items():
        known = {score.name: score.value for score in others.get(task, ())}
        found[task] = tuple(
            replace(score, blind={**(score.blind or {}), kind: known[score.name]}) if score.name in known else score
            for score in own
        )
    return found


# --- items ----------------------------------------------------------------------------------------------------------


def blind_items(items: Sequence[Item], modality: Modality) -> tuple[Item, ...] | None:
    """Return the items, each with the images or the texts of another; None where there are none that could change.

    An image of which an item sees one box takes its box along: a probe is shown the crop. Items that see whole images
    beside such ones (ARO has both) exchange theirs with each other.
    """
    boxed = [bool(item.boxes) and modality == "vision" for item in items]
    crops = [item for item, one in zip(items, boxed, strict=True) if one]
    if not all(len(item.boxes) == len(item.images) == 1 for item in crops):
        return None
    whole = [item for item, one in zip(items, boxed, strict=True) if not one]
    try:
        left = iter(_uncropped(blinded(_cropped(crops), modality, SEED)))
        right = iter(blinded(whole, modality, SEED))
    except DataError:
        return None
    return tuple(next(left if one else right) for one in boxed)


@dataclass(frozen=True, slots=True)
class _Crop:
    """One box of an image, under the name of the image."""

    image: ImageSource
    box: Box

    @property
    def name(self) -> str:
        """What the image is called: another box of it does not stand in its place."""
        return self.image.name


def _cropped(items: Sequence[Item]) -> tuple[Item, ...]:
    return tuple(replace(item, images=(_Crop(item.images[0], item.boxes[0]),), boxes=()) for item in items)


def _uncropped(items: Sequence[Item]) -> tuple[Item, ...]:
    return tuple(replace(item, images=(item.images[0].image,), boxes=(item.images[0].box,)) for item in items)


# --- images with captions -------------------------------------------------------------------------------------------


class Remembering:
    """A scorer that computes each score once, however often it is asked for."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._similarity: Tensor | None = None
        self._matched: dict[str, tuple[Tensor, Tensor]] = {}  # by head: bool [V, T] which are known, and the logits

    @property
    def positives(self) -> Tensor:
        """Bool [V, T]: which distinct texts are captions of which images."""
        return self._scorer.positives

    def similarity(self) -> Tensor:
        """Dot products of ITC's unit vectors, fp32 [V, T]."""
        if self._similarity is None:
            self._similarity = self._scorer.similarity()
        return self._similarity

    def match(self, index: Tensor, by: str = "itm") -> Tensor:
        """Logits fp32 [P] of the (image, text) pairs in index int64 [P, 2], by ITM's head or another."""
        if by not in self._matched:
            self._matched[by] = torch.zeros_like(self.positives), torch.zeros(self.positives.shape)
        known, logits = self._matched[by]
        image, text = index.unbind(1)
        new = index[~known[image, text]]
        if len(new):
            logits[new[:, 0], new[:, 1]] = self._scorer.match(new, by)
            known[new[:, 0], new[:, 1]] = True
        return logits[image, text]


@dataclass(frozen=True, slots=True)
class BlindScorer:
    """A scorer of images each of which has the captions of another: `positives` bool [V, T] says which.

    It serves for both modalities, as to exchange captions is to exchange images.
    """

    scorer: Scorer
    positives: Tensor

    def similarity(self) -> Tensor:
        """Dot products of ITC's unit vectors, fp32 [V, T]."""
        return self.scorer.similarity()

    def match(self, index: Tensor, by: str = "itm") -> Tensor:
        """Logits fp32 [P] of the (image, text) pairs in index int64 [P, 2], by ITM's head or another."""
        return self.scorer.match(index, by)


def exchanged(belongs: Tensor) -> Tensor | None:
    """Return bool [V, T] with the rows of `belongs` [V, T] exchanged, so that as few images as can be keep a caption.

    None: each image keeps one, whatever row it gets.
    """
    count = len(belongs)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(SEED))
    best: tuple[int, Tensor] | None = None
    for shift in range(1, min(count, TRIES + 1)):
        other = torch.empty_like(belongs)
        other[order] = belongs[order.roll(shift)]
        keep = int((other & belongs).any(1).sum())
        if keep < (count if best is None else best[0]):
            best = keep, other
        if keep == 0:
            break
    return None if best is None else best[1]
