"""COCO captions: `dataset_coco.json` of Karpathy and Fei-Fei, with the images in `train2014/` and `val2014/`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from renaissance.data.layouts import Problems, RawItem
from renaissance.data.readers.karpathy import Place, read_karpathy


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each image, with its captions as published; the id is that of COCO.

    Raises:
        DataError: the split file is missing or damaged.
        SampleError: an entry cannot be used, and bad samples are errors.
    """
    return read_karpathy(root, "dataset_coco.json", "coco", _place, problems)


def _place(entry: Mapping[str, Any]) -> Place:
    return Place(str(entry["cocoid"]), f"{entry['filepath']}/{entry['filename']}")
