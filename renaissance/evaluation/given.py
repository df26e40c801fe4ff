"""Pictures and texts that are given by hand, as items, and what a model says of them. Letters: K labels."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import torch
from PIL.Image import Image
from torch import Tensor

from renaissance.api import Box, Item
from renaissance.data.decode import SKIPPING, open_image
from renaissance.errors import SampleError, SpecError
from renaissance.spec import shown

Picture: TypeAlias = Image | Path | str | bytes


class Prediction(NamedTuple):
    """The likeliest label (or candidate, by its number) with its probability, and those of all, the likeliest first."""

    label: str
    probability: float
    probabilities: dict[str, float]


def given_items(
    images: Sequence[Picture | Sequence[Picture]] | Picture | None,
    texts: Sequence[str | Sequence[str]] | str | None,
    boxes: Sequence[Sequence[Box]] | None = None,
) -> list[Item]:
    """Return items of image i and text i, each one or several, and the boxes of image i.

    Raises:
        SpecError: there are not as many images as texts, or neither; or the boxes are not those of each image.
        SampleError: a text is empty.
    """
    pictures = None if images is None else pictures_of(cast(Any, images))
    words = None if texts is None else words_of(cast(Any, texts))
    sizes = {len(given) for given in (pictures, words) if given is not None}
    if len(sizes) != 1 or 0 in sizes:
        raise SpecError("predict takes image i with text i: give as many of each, at least one, or only one kind.")
    count, items = sizes.pop(), []
    regions = [()] * count if boxes is None else [_boxes(given, index) for index, given in enumerate(boxes)]
    if len(regions) != count:
        raise SpecError(f"boxes are for {len(regions)} images, and there are {count}. Give a list of boxes an image.")
    for index in range(count):
        seen = () if pictures is None else _several(pictures[index])
        said = () if words is None else _several(words[index])
        for text in said:
            if not isinstance(text, str) or not text.strip():
                raise SampleError(f"texts[{index}] is empty, or no text. Leave it out.")
        given = tuple(_Given(f"images[{index}]", place, picture) for place, picture in enumerate(seen))
        row = f"images[{index}]" if seen else f"texts[{index}]"
        items.append(Item(id=str(index), images=given, texts=said, row=row, boxes=regions[index]))
    return items


def _boxes(given: Sequence[Box], index: int) -> tuple[Box, ...]:
    try:
        boxes = tuple((float(x), float(y), float(width), float(height)) for x, y, width, height in given)
    except (TypeError, ValueError):
        boxes = ()
    if not boxes or not all(math.isfinite(value) for box in boxes for value in box):
        raise SpecError(f"boxes[{index}] is no list of boxes. Give (left, top, width, height) in pixels for each.")
    return boxes


def _several(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, Sequence) and not isinstance(given, Picture) else (given,)


class _Given(NamedTuple):
    """A picture of an item, read as the images of a corpus are."""

    item: str
    place: int
    picture: Picture

    @property
    def name(self) -> str:
        """Where it was given."""
        return f"{self.item}[{self.place}]" if self.place else self.item

    def read(self) -> bytes:
        """Return it as the bytes of a file without loss."""
        buffer = io.BytesIO()
        opened(self.picture, self.name).save(buffer, "PNG")
        return buffer.getvalue()


def numbers(count: int) -> list[str]:
    """Return what candidates are called that have no label: their numbers, from 0."""
    return [str(number) for number in range(count)]


def prediction(labels: Sequence[str], probabilities: Tensor) -> Prediction:
    """Return what probabilities [K] of the labels say."""
    ranked = sorted(zip(labels, probabilities.tolist(), strict=True), key=lambda pair: -pair[1])
    return Prediction(*ranked[0], dict(ranked))


def opened(picture: Picture, name: str) -> Image:
    """Return a picture that was given, upright and in RGB.

    Raises:
        SampleError: it cannot be read, or is no picture.
    """
    if not isinstance(picture, Picture):
        raise SampleError(f"{name} is a {type(picture).__name__}. Give a PIL picture, a path or bytes.")
    if isinstance(picture, str) and ("://" in picture or not picture):
        raise SampleError(f"{name}: '{shown(picture)}' is no path, and nothing is downloaded here. Give a file's.")
    try:
        return open_image(Path(picture) if isinstance(picture, str) else picture, name=name)
    except SampleError as error:  # of what is given by hand, nothing is skipped
        raise SampleError(str(error).replace(SKIPPING, "")) from None


def pictures_of(images: Picture | Sequence[Picture]) -> list[Picture]:
    """Return the images as a list, of which there may be one alone.

    Raises:
        SpecError: they are neither one nor several.
    """
    return [images] if isinstance(images, Picture) else _listed(images, "images", "a PIL picture, a path or bytes")


def words_of(texts: str | Sequence[str]) -> list[str]:
    """Return the texts as a list, of which there may be one alone.

    Raises:
        SpecError: they are neither one nor several.
    """
    return [texts] if isinstance(texts, str) else _listed(texts, "texts", "a text")


def _listed(given: Any, name: str, one: str) -> list[Any]:
    """Return as a list what was given as several; bytes and mappings have items, and none that are meant."""
    if isinstance(given, Iterable) and not isinstance(given, bytes | bytearray | Mapping | io.IOBase):
        return list(given)
    raise SpecError(f"{name}= is a {type(given).__name__}. Give {one}, or a list of such.")


def in_batches(call: Callable[[list[tuple[int, Any]]], Tensor], items: Sequence[Any], batch_size: int) -> Tensor:
    """Return `call` of the numbered items, batch after batch, as one fp32 tensor on the CPU.

    Raises:
        SpecError: `batch_size` is no whole number from 1 on.
        SampleError: there are no items.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise SpecError(f"batch_size must be a whole number, at least 1, and is {shown(batch_size)}.")
    if not items:
        raise SampleError("There is nothing to compute: the list is empty. Give at least one.")
    numbered = list(enumerate(items))
    parts = []
    for start in range(0, len(numbered), batch_size):
        with torch.inference_mode():
            parts.append(call(numbered[start : start + batch_size]).float().cpu())
    return torch.cat(parts)  # outside of inference mode: a plain tensor
