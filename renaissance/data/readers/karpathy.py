"""The split files of Karpathy and Fei-Fei: {"images": [{split, filename, sentences: [{raw}], ...}], "dataset": ...}."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.data.layouts import Problems, RawImage, RawItem
from renaissance.data.readers.streams import json_items
from renaissance.data.readers.texts import clean_texts

# the last one is that of a generated world, beside those that are published
SPLITS = ("train", "restval", "val", "test", "test_compositional")


@dataclass(frozen=True, slots=True)
class Place:
    """An image of a split file: the number or name that tells it apart, and where it is below the root."""

    key: str
    path: str


def read_karpathy(
    root: Path, file: str, corpus: str, place: Callable[[Mapping[str, Any]], Place], problems: Problems
) -> Iterator[RawItem]:
    """Yield an item for each image; `corpus` stands before the key in the id of the image.

    Raises:
        DataError: the split file is missing or damaged.
        SampleError: an entry cannot be used, and bad samples are errors.
    """
    for number, entry in enumerate(json_items(root / file, "images"), start=1):
        row = f"{file}, image {number}"
        try:
            where, split = place(entry), entry["split"]
            raw = [sentence["raw"] for sentence in entry["sentences"]]
        except (LookupError, TypeError) as error:
            problems.report(row, f"the entry lacks what the layout has ({type(error).__name__}: {error})")
            continue
        if split not in SPLITS:
            problems.report(row, f"the split {split!r} is none of {', '.join(SPLITS)}")
            continue
        texts = clean_texts(raw, row, problems)
        if not texts:
            problems.report(row, "the image has no caption")
            continue
        image = RawImage(f"{corpus}:{where.key}", root / where.path)
        yield RawItem(split=split, id=where.key, row=row, images=(image,), texts=texts)
