"""Flickr30k: `dataset_flickr30k.json` of Karpathy and Fei-Fei, with the images in `flickr30k-images/`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from renaissance.data.layouts import Problems, RawItem
from renaissance.data.readers.karpathy import Place, read_karpathy


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each image, with its captions as published; the id is that of Flickr.

    Raises:
        DataError: the split file is missing or damaged.
        SampleError: an entry cannot be used, and bad samples are errors.
    """
    return read_karpathy(root, "dataset_flickr30k.json", "flickr30k", _place, problems)


def _place(entry: Mapping[str, Any]) -> Place:
    return Place(str(entry["filename"]).removesuffix(".jpg"), f"flickr30k-images/{entry['filename']}")
