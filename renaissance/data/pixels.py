"""Bytes to uint8 pixels: what `renaissance.data.decode` gives, without the copies that a PIL picture costs.

Letters in shapes: h and w height and width of a picture.
"""

from __future__ import annotations

import math

import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from renaissance.data.decode import MAX_PIXELS, is_plain_jpeg, open_record, opened, read_record, to_rgb
from renaissance.data.jpeg import plain_size
from renaissance.data.records import Record
from renaissance.toolkit.images import ImageProcessor, to_pixels


def decode_pixels(data: bytes, *, name: str) -> Tensor:
    """Return uint8 pixels [3, h, w] of the upright RGB picture in these bytes; `name` says in errors which it is.

    They equal those of `decode`, and what that refuses is refused here.

    Raises:
        SampleError: the bytes are no picture that `decode` accepts.
    """
    size = plain_size(data)  # in a tenth of the time in which Pillow reads a header
    pixels = _of_jpeg(data) if size is not None and math.prod(size) <= MAX_PIXELS else None
    return _of_any(data, name) if pixels is None else pixels


def picture_for(processor: object, record: Record) -> Image.Image | Tensor:
    """Return the picture of a record as its processor reads it soonest: pixels for ours, a PIL picture for another.

    Raises:
        SampleError: it cannot be read or decoded; the message names its row.
    """
    if not isinstance(processor, ImageProcessor):
        return open_record(record)
    return decode_pixels(read_record(record), name=f"{record.row}: {record.image.name}")


def _of_any(data: bytes, name: str) -> Tensor:
    """Return uint8 pixels [3, h, w] of any picture that `decode` accepts; Pillow looks at its header."""
    with opened(data, name=name) as picture:
        pixels = _of_jpeg(data) if is_plain_jpeg(picture) else None
        if pixels is None:
            picture.load()
            pixels = to_pixels(to_rgb(picture, name))
        return pixels


def _of_jpeg(data: bytes) -> Tensor | None:
    """Return uint8 pixels [3, h, w], or None of a JPEG with any fault: Pillow then decides, and says what is wrong."""
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError:
        return None
    return torch.from_numpy(pixels).permute(2, 0, 1)
