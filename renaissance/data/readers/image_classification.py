"""Image classification: a folder a class below `train/`, `val/` and `test/`; its name is the label."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from renaissance.data.layouts import Problems, RawImage, RawItem, require
from renaissance.data.readers.published_labelled import IMAGE_CLASSIFICATION_PAGE
from renaissance.errors import DataError

SPLITS = ("train", "val", "test")


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each image, by split, class and name; a class that `train` lacks cannot be used elsewhere.

    Raises:
        DataError: there is none of the folders, or one cannot be read.
        SampleError: a file or class cannot be used, and bad samples are errors.
    """
    there = [split for split in SPLITS if (root / split).is_dir()]
    if not there:
        require(root, SPLITS[0], page=IMAGE_CLASSIFICATION_PAGE)
    known = set(_names(root / "train", folders=True)) if "train" in there else None
    for split in there:
        for label in _names(root / split, folders=True):
            if known is not None and label not in known:
                problems.report(f"{split}/{label}", f"the label '{label}' is none of the classes of 'train'")
                continue
            yield from _images(root, split, label, problems)


def _images(root: Path, split: str, label: str, problems: Problems) -> Iterator[RawItem]:
    folder = root / split / label
    for name in _names(folder, folders=True):
        problems.report(f"{split}/{label}/{name}", "it is a folder; the folder of a class holds images only")
    names = _names(folder, folders=False)
    if not names:
        problems.report(f"{split}/{label}", "the class has no image")
    for name in names:
        key = f"{split}/{label}/{name}"
        image = RawImage(key, folder / name)
        yield RawItem(split=split, id=key, row=key, images=(image,), texts=(), label=label)


def _names(folder: Path, *, folders: bool) -> list[str]:
    """Return the names of the folders or files in a folder, sorted; hidden ones are passed over."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() == folders and entry.name[0] != ".")
    except OSError as error:
        raise DataError(f"'{folder}' cannot be read ({error.strerror or error}).") from None
