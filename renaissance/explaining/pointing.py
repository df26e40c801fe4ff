"""The pointing game (Zhang et al. 2016, arXiv 1608.00507): how often a map's maximum lies in the box of what is named.

The maximum of a map of patches is the middle of its greatest patch, so a patch that is drawn blindly hits as often as
middles of patches lie in the box: that is chance, of the same pictures. A map that finds things, but not the named one,
hits the boxes of the other things as often.

Letters in shapes: R and C rows and columns of patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from renaissance.api import Box
from renaissance.errors import DataError
from renaissance.toolkit.metrics import bootstrap


@dataclass(frozen=True, slots=True)
class Pointing:
    """One picture: where the map points, as shares of its sides, whether it hits, and how often chance does."""

    point: tuple[float, float]
    hit: bool
    other: float
    chance: float
    area: float


def cropped(box: Box, kept: float) -> Box:
    """Return a box of a square picture as shares of its middle, where a share `kept` of each side is left."""
    left, top, width, height = box
    edge = (1 - kept) / 2
    return (left - edge) / kept, (top - edge) / kept, width / kept, height / kept


def point_of(patches: Tensor) -> tuple[float, float]:
    """Return (across, down) of the middle of the greatest patch [R, C], in shares of the sides; of equals the first."""
    rows, columns = patches.shape
    row, column = divmod(int(patches.flatten().argmax()), columns)
    return (column + 0.5) / columns, (row + 0.5) / rows


def inside(point: tuple[float, float], box: Box) -> bool:
    """Return whether a point lies in a box of left, top, width and height."""
    left, top, width, height = box
    return left <= point[0] <= left + width and top <= point[1] <= top + height


def pointing(patches: Tensor, named: Box, others: Sequence[Box] = ()) -> Pointing:
    """Return where a map [R, C] points; boxes are shares of the picture's sides.

    other: the share of the other boxes that it hits.
    """
    rows, columns = patches.shape
    point = point_of(patches)
    middles = [((column + 0.5) / columns, (row + 0.5) / rows) for row in range(rows) for column in range(columns)]
    return Pointing(
        point,
        inside(point, named),
        sum(inside(point, other) for other in others) / max(1, len(others)),
        sum(inside(middle, named) for middle in middles) / len(middles),
        named[2] * named[3],
    )


def pointing_summary(found: Sequence[Pointing]) -> dict[str, Any]:
    """Return how often maps hit, in percent, with 95% bootstrap intervals over pictures, beside chance.

    above_chance: hits less chance, picture by picture.

    Raises:
        DataError: there are no pictures.
    """
    if not found:
        raise DataError("The pointing game needs pictures with boxes, and there are none. Give more --samples.")
    hits = np.array([100.0 * one.hit for one in found])
    chance = np.array([100.0 * one.chance for one in found])
    units = np.arange(len(found))
    return {
        "samples": len(found),
        "hits": float(hits.mean()),
        "interval": list(bootstrap(hits, units)),
        "chance": float(chance.mean()),
        "above_chance": float((hits - chance).mean()),
        "above_chance_interval": list(bootstrap(hits - chance, units)),
        "other_things": float(np.mean([100 * one.other for one in found])),
        "box_area": float(np.mean([100 * one.area for one in found])),
    }
