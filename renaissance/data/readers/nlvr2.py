"""NLVR2: `train.json`, `dev.json`, `test1.json`, one JSON object a line, and two images a sentence.

The images of `train` are in `images/train/<directory>/`, the others in `images/<split>/`, or in `<split>/` as their
archives unpack; their names are the identifier without its last field, and -img0.png (left) or -img1.png (right).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.data.layouts import Problems, RawImage, RawItem
from renaissance.data.readers.labelled import below, id_of, image_folder, label_of, splits_there, text_of, usable
from renaissance.data.readers.published_labelled import NLVR2_PAGE
from renaissance.data.readers.streams import json_lines
from renaissance.errors import DataError

FILES = {split: f"{split}.json" for split in ("train", "dev", "test1")}
LABELS = ("True", "False")
_SPLITS = (*FILES, "test2")


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each sentence of the splits that were downloaded: its images are left, right.

    Raises:
        DataError: a file is missing, damaged, or that of another split.
        SampleError: a row cannot be used, and bad samples are errors.
    """
    for split, file in splits_there(root, FILES, page=NLVR2_PAGE).items():
        places = (f"images/{split}", split) if split != "train" else ("images/train",)
        images = image_folder(root, places, problems, page=NLVR2_PAGE)
        rows = ((f"{file.name}, line {number}", entry) for number, entry in json_lines(file))
        yield from usable(rows, _Maker(split, file, images), problems)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the items of a split."""

    split: str
    file: Path
    images: Path

    def __call__(self, row: str, entry: Any) -> RawItem:
        if entry is None:
            raise ValueError("the line is not JSON")
        identifier = id_of(entry, "identifier")
        stem = self._stem(identifier)
        folder = self.images
        if self.split == "train":
            folder = below(folder, id_of(entry, "directory"))
        paths = [below(folder, f"{stem}-img{number}.png") for number in (0, 1)]
        return RawItem(
            split=self.split,
            id=identifier,
            row=row,
            images=tuple(RawImage(f"nlvr2:{path.stem}", path) for path in paths),
            texts=(text_of(entry, "sentence"),),
            label=label_of(entry["label"], LABELS),
            fields={"identifier": identifier},
        )

    def _stem(self, identifier: str) -> str:
        """Return the identifier without the number of the sentence.

        Raises:
            DataError: it is that of another split, so the file is.
        """
        split, *numbers = identifier.split("-")
        if split != self.split and split in _SPLITS:
            raise DataError(
                f"'{self.file}' holds '{identifier}', which is of '{split}': it is the file of another split. "
                f"Download it again ({NLVR2_PAGE})."
            )
        if split != self.split or len(numbers) != 3:
            raise ValueError(f"the identifier {identifier!r} is not {self.split}-<set>-<pair>-<sentence>")
        return identifier.rpartition("-")[0]
