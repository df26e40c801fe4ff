"""CIFAR-10, binary version: `data_batch_1.bin` to `data_batch_5.bin`, `test_batch.bin` and `batches.meta.txt`.

A record is a byte for the class and 32 x 32 pixels, first all red, then all green, then all blue. The pixels are no
encoded image, so that they become PNG, which loses nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from renaissance.data.layouts import Problems, RawImage, RawItem, require
from renaissance.data.readers.labelled import splits_there, usable
from renaissance.data.readers.published_labelled import CIFAR10_PAGE
from renaissance.data.readers.streams import text_lines
from renaissance.errors import DataError

SIDE = 32
CLASSES = 10
NAMES = "batches.meta.txt"
BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_RECORD = 1 + 3 * SIDE * SIDE


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each record of the batches that were downloaded, in the splits `train` and `test`.

    Raises:
        DataError: a file is missing or truncated.
        SampleError: a record cannot be used, and bad samples are errors.
    """
    names = _class_names(require(root, NAMES, page=CIFAR10_PAGE))
    files = {batch: f"{batch}.bin" for batch in (*BATCHES, "test_batch")}
    for batch, file in splits_there(root, files, page=CIFAR10_PAGE).items():
        split = "test" if batch == "test_batch" else "train"
        yield from usable(_records(file), _Maker(split, file, names), problems)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the items of one file."""

    split: str
    file: Path
    names: tuple[str, ...]

    def __call__(self, row: str, record: tuple[int, bytes]) -> RawItem:
        number, data = record
        if data[0] >= len(self.names):
            raise ValueError(f"the label {data[0]} is none of 0 to {len(self.names) - 1}")
        key = f"{self.file.stem}-{number:05d}"
        image = RawImage(f"cifar-10:{key}", self.file.with_name(f"{key}.png"), _png(data[1:]))
        return RawItem(split=self.split, id=key, row=row, images=(image,), texts=(), label=self.names[data[0]])


def _records(file: Path) -> Iterator[tuple[str, tuple[int, bytes]]]:
    try:
        with file.open("rb") as opened:
            number = 0
            while record := opened.read(_RECORD):
                if len(record) < _RECORD:
                    raise DataError(f"'{file}' is truncated in record {number}. Download it again ({CIFAR10_PAGE}).")
                yield f"{file.name}, record {number}", (number, record)
                number += 1
    except OSError as error:
        raise DataError(f"'{file}' cannot be read ({error.strerror or error}).") from None


def _class_names(file: Path) -> tuple[str, ...]:
    names = tuple(line.strip() for _, line in text_lines(file) if line.strip())
    if len(set(names)) != CLASSES or len(names) != CLASSES:
        raise DataError(f"'{file}' names {len(set(names))} classes, not {CLASSES}. Download it again ({CIFAR10_PAGE}).")
    return names


def _png(planes: bytes) -> bytes:
    pixels = np.frombuffer(planes, np.uint8).reshape(3, SIDE, SIDE).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()
