"""SNLI-VE: `snli_ve_{train,dev,test}.jsonl` and Flickr30k's images in `flickr30k-images/`.

The text is the hypothesis alone: the premise is the image; the caption it was written for would tell the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.data.layouts import Problems, RawImage, RawItem
from renaissance.data.readers.labelled import below, id_of, image_folder, label_of, splits_there, text_of, usable
from renaissance.data.readers.published_labelled import SNLI_VE_PAGE
from renaissance.data.readers.streams import json_lines

FILES = {split: f"snli_ve_{split}.jsonl" for split in ("train", "dev", "test")}
LABELS = ("contradiction", "neutral", "entailment")


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each hypothesis of the splits that were downloaded.

    Raises:
        DataError: a file is missing or damaged.
        SampleError: a row cannot be used, and bad samples are errors.
    """
    images = image_folder(root, ("flickr30k-images",), problems, page=SNLI_VE_PAGE)
    for split, file in splits_there(root, FILES, page=SNLI_VE_PAGE).items():
        rows = ((f"{file.name}, line {number}", entry) for number, entry in json_lines(file))
        yield from usable(rows, _Maker(split, images), problems)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the items of a split."""

    split: str
    images: Path

    def __call__(self, row: str, entry: Any) -> RawItem:
        if entry is None:
            raise ValueError("the line is not JSON")
        image = id_of(entry, "Flickr30K_ID")
        return RawItem(
            split=self.split,
            id=id_of(entry, "pairID"),
            row=row,
            images=(RawImage(f"flickr30k:{image}", below(self.images, f"{image}.jpg")),),
            texts=(text_of(entry, "sentence2"),),
            label=label_of(entry["gold_label"], LABELS),
        )
