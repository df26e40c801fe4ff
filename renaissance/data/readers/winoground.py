"""Winoground: `examples.jsonl` and `images/`: two images and two captions with the same words, in another order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.data.layouts import Problems, RawImage, RawItem, require
from renaissance.data.readers.labelled import below, id_of, image_folder, text_of, usable
from renaissance.data.readers.published_labelled import WINOGROUND_PAGE
from renaissance.data.readers.streams import json_lines

FILE = "examples.jsonl"
TAGS = ("tag", "secondary_tag", "collapsed_tag", "num_main_preds")


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each example, in the split `test`: caption 0 is true of image 0, caption 1 of image 1.

    Raises:
        DataError: a file is missing or damaged.
        SampleError: a row cannot be used, and bad samples are errors.
    """
    file = require(root, FILE, page=WINOGROUND_PAGE)
    images = image_folder(root, ("images",), problems, page=WINOGROUND_PAGE)
    rows = ((f"{FILE}, line {number}", entry) for number, entry in json_lines(file))
    yield from usable(rows, _Maker(images), problems)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the items."""

    images: Path

    def __call__(self, row: str, entry: Any) -> RawItem:
        if entry is None:
            raise ValueError("the line is not JSON")
        return RawItem(
            split="test",
            id=id_of(entry, "id"),
            row=row,
            images=(self._image(entry, "image_0"), self._image(entry, "image_1")),
            texts=(text_of(entry, "caption_0"), text_of(entry, "caption_1")),
            fields={tag: str(entry[tag]) for tag in TAGS if entry.get(tag) not in (None, "")},
        )

    def _image(self, entry: Any, key: str) -> RawImage:
        # the published names have no suffix
        name = id_of(entry, key).removesuffix(".png")
        return RawImage(f"winoground:{name}", below(self.images, f"{name}.png"))
