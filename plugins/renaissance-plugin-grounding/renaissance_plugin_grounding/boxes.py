"""Boxes as (centre x, centre y, width, height), each a share of the image's side from 0 to 1; their overlap.

Letters in shapes: I items, C candidates.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from renaissance.api import Box, Item
from renaissance.errors import DataError

ORIENTATION = 0x0112  # of EXIF; from 5 on height and width change places
CANDIDATES = 512


class TargetBoxes:
    """The box that each item means, float [I, 4]."""

    def __call__(self, items: Sequence[Item]) -> Tensor:
        """Return the boxes.

        Raises:
            DataError: an item has no box that is meant, or several images or texts.
            SampleError: its image cannot be read.
        """
        return torch.tensor([shares(self.told(item), size_of(item)) for item in items])

    def told(self, item: Item) -> Box:
        """Return the box that an item means, in pixels.

        Raises:
            DataError: it has none, or several images or texts.
        """
        if len(item.images) != 1 or len(item.texts) != 1:
            raise DataError(
                f"{item.row}: '{item.id}' has {len(item.images)} images and {len(item.texts)} texts, and 'grounding' "
                "reads one phrase of one image. Mend the data."
            )
        number = meant(item)
        if number is None or not 0 <= number < len(item.boxes):
            says = "does not say which is meant" if number is None else f"says that number {number} is meant"
            raise DataError(f"{item.row}: '{item.id}' has {len(item.boxes)} boxes, and {says}. Mend the data.")
        return item.boxes[number]


def meant(item: Item) -> int | None:
    """Return the number of the box that an item means: its target, or its only box; None where it does not say."""
    return 0 if item.target is None and len(item.boxes) == 1 else item.target


def size_of(item: Item) -> tuple[int, int]:
    """Return (width, height) in pixels of an item's image, upright.

    Raises:
        DataError: it is no image.
        SampleError: it cannot be read.
    """
    try:
        return _size_in_header(item.images[0])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        name = item.images[0].name
        raise DataError(f"{item.row}: {name} is no image that can be decoded ({error}). Mend it.") from None


@lru_cache(2**17)  # an image is read in every epoch, and has several phrases
def _size_in_header(image: Any) -> tuple[int, int]:
    with Image.open(io.BytesIO(image.read())) as picture:
        (width, height), turned = picture.size, picture.getexif().get(ORIENTATION, 1) >= 5
    return (height, width) if turned else (width, height)


def shares(box: Box, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return (centre x, centre y, width, height) as shares of an image of `size` (width, height) of a box in pixels."""
    left, top, width, height = box
    return (left + width / 2) / size[0], (top + height / 2) / size[1], width / size[0], height / size[1]


def pixels(box: Sequence[float], size: tuple[int, int]) -> Box:
    """Return the box (left, top, width, height) in pixels of an image of `size` (width, height): undo `shares`."""
    x, y, width, height = box
    return (x - width / 2) * size[0], (y - height / 2) * size[1], width * size[0], height * size[1]


def overlaps(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return (IoU, generalised IoU) of boxes [..., 4] with others [..., 4], which broadcast.

    The second (arXiv 1902.09630) also tells boxes apart that do not touch: it is less the share of the smallest box
    around both that neither fills.
    """
    (a, b), (c, d) = _corners(one), _corners(other)
    common = (torch.minimum(b, d) - torch.maximum(a, c)).clamp(min=0).prod(-1)
    union = (b - a).prod(-1) + (d - c).prod(-1) - common
    around = (torch.maximum(b, d) - torch.minimum(a, c)).prod(-1)
    tiny = torch.finfo(union.dtype).tiny
    iou = common / union.clamp(min=tiny)
    return iou, iou - (around - union) / around.clamp(min=tiny)


def _corners(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return left top and right bottom, each [..., 2]."""
    half = boxes[..., 2:] / 2
    return boxes[..., :2] - half, boxes[..., :2] + half


def best_constant(targets: Tensor, *, enough: float) -> tuple[float, float]:
    """Return in percent what one box for all items gives, targets [I, 4]: (accuracy, mean IoU), each at its best.

    Tried are the mean and the median of the boxes that are meant, and up to 512 of these themselves.
    """
    places = torch.linspace(0, len(targets) - 1, min(len(targets), CANDIDATES)).long()
    middle = torch.stack([targets.mean(0), targets.median(0).values])
    found = [overlaps(box, targets)[0] for box in torch.cat([middle, targets[places]])]  # C of [I]
    accuracies = [float((iou >= enough).double().mean()) for iou in found]
    return 100 * max(accuracies), 100 * max(float(iou.double().mean()) for iou in found)
