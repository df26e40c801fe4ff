"""Bytes to uint8 pixels: what `renaissance.data.decode` gives, without the copies that a PIL picture costs.

Where a processor decodes "fast", JPEG files alone are decoded otherwise: with a coarser transform and coarser colours,
and to a half, a quarter or an eighth of the size where at least 1.8 times as many pixels a side are left as are wanted.

Letters in shapes: h and w height and width of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from renaissance.data.decode import MAX_PIXELS, is_plain_jpeg, open_record, opened, read_record, to_rgb
from renaissance.data.jpeg import plain_size
from renaissance.data.records import Record
from renaissance.toolkit.images import ImageProcessor, to_pixels

# By how much smaller, each way, a picture of (height, width) may be decoded: 1, 2, 4 or 8
Reduction = Callable[[int, int], int]


def decode_pixels(data: bytes, *, name: str, fast: Reduction | None = None) -> Tensor:
    """Return uint8 pixels [3, h, w] of the upright RGB picture in these bytes; `name` says in errors which it is.

    They equal those of `decode`, and what that refuses is refused here. fast: JPEG files are decoded to nearly those.

    Raises:
        SampleError: the bytes are no picture that `decode` accepts.
    """
    size = plain_size(data)  # in a tenth of the time in which Pillow reads a header
    pixels = _of_jpeg(data, size, fast) if size is not None and math.prod(size) <= MAX_PIXELS else None
    return _of_any(data, name, fast) if pixels is None else pixels


def picture_for(processor: object, record: Record, *, share: float | None = None) -> Image.Image | Tensor:
    """Return the picture of a record as its processor reads it soonest: pixels for ours, a PIL picture for another.

    share: the least share of its area that will be seen; default: what the processor's centre crop sees.

    Raises:
        SampleError: it cannot be read or decoded; the message names its row.
    """
    if not isinstance(processor, ImageProcessor):
        return open_record(record)
    name = f"{record.row}: {record.image.name}"
    return decode_pixels(read_record(record), name=name, fast=reduction_of(processor, share=share))


def reduction_of(processor: ImageProcessor, *, share: float | None = None, whole: bool = False) -> Reduction | None:
    """Return how fast a processor lets JPEG files be decoded; None: exactly.

    whole: to their own size, since boxes of the picture count its pixels.
    """
    if processor.decoding == "exact":
        return None
    return (lambda _height, _width: 1) if whole else partial(processor.reduction, share=share)


def _of_any(data: bytes, name: str, fast: Reduction | None) -> Tensor:
    """Return uint8 pixels [3, h, w] of any picture that `decode` accepts; Pillow looks at its header."""
    with opened(data, name=name) as picture:
        pixels = _of_jpeg(data, picture.size, fast) if is_plain_jpeg(picture) else None
        if pixels is None:
            picture.load()
            pixels = to_pixels(to_rgb(picture, name))
        return pixels


def _of_jpeg(data: bytes, size: tuple[int, int], fast: Reduction | None) -> Tensor | None:
    """Return uint8 pixels [3, h, w], or None of a JPEG with any fault: Pillow then decides, and says what is wrong.

    size: its (width, height).
    """
    options: dict[str, Any] = {}
    if fast is not None:
        factor, (width, height) = fast(size[1], size[0]), size
        options = {"fastdct": True, "fastupsample": True, "min_factor": factor}
        options |= {"min_height": -(-height // factor), "min_width": -(-width // factor)}
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", strict=True, **options)
    except ValueError:
        return None
    return torch.from_numpy(pixels).permute(2, 0, 1)
