"""SugarCrepe: seven files of captions with one thing changed, and COCO's images in `val2017/`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.data.layouts import Problems, RawImage, RawItem, require
from renaissance.data.readers.labelled import below, id_of, image_folder, text_of, usable
from renaissance.data.readers.published_labelled import SUGARCREPE_PAGE, SUGARCREPE_SUBSETS
from renaissance.data.readers.streams import json_members


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each pair of captions, in the split `test`: the true one comes first.

    Raises:
        DataError: a file is missing or damaged; the score is the mean of all seven.
        SampleError: a row cannot be used, and bad samples are errors.
    """
    images = image_folder(root, ("val2017",), problems, page=SUGARCREPE_PAGE)
    files = [require(root, f"{subset}.json", page=SUGARCREPE_PAGE) for subset in SUGARCREPE_SUBSETS]
    for file in files:
        rows = ((f"{file.name}, entry {key}", (key, entry)) for key, entry in json_members(file))
        yield from usable(rows, _Maker(file.stem, images), problems)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the items of one file."""

    subset: str
    images: Path

    def __call__(self, row: str, member: tuple[str, Any]) -> RawItem:
        key, entry = member
        path = below(self.images, id_of(entry, "filename"))
        texts = text_of(entry, "caption"), text_of(entry, "negative_caption")
        if texts[0] == texts[1]:
            raise ValueError("the caption and the negative caption are the same")
        return RawItem(
            split="test",
            id=f"{self.subset}-{key}",
            row=row,
            images=(RawImage(f"coco:{path.stem.lstrip('0') or '0'}", path),),
            texts=texts,
            target=0,
            fields={"subset": self.subset},
        )
