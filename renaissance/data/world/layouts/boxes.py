"""Boxes [left, top, width, height] in pixels."""

from __future__ import annotations

import math

from renaissance.api import Box


def union(one: Box, other: Box) -> Box:
    """Return the box around two boxes."""
    left, top = min(one[0], other[0]), min(one[1], other[1])
    right, bottom = max(one[0] + one[2], other[0] + other[2]), max(one[1] + one[3], other[1] + other[3])
    return left, top, right - left, bottom - top


def grown(box: Box, margin: float, image_size: int) -> Box:
    """Return a box with a margin around it, as far as there is picture."""
    left, top = max(0.0, box[0] - margin), max(0.0, box[1] - margin)
    right = min(float(image_size), box[0] + box[2] + margin)
    bottom = min(float(image_size), box[1] + box[3] + margin)
    return left, top, right - left, bottom - top


def pixels(box: Box) -> tuple[int, int, int, int]:
    """Return the smallest box of whole pixels around a box."""
    left, top = math.floor(box[0]), math.floor(box[1])
    return left, top, math.ceil(box[0] + box[2]) - left, math.ceil(box[1] + box[3]) - top


def overlap(one: Box, other: Box) -> float:
    """Return intersection over union."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)
