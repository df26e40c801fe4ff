"""A user's data: an image folder with a caption file, that file itself, or a Hugging Face `datasets` directory."""

from __future__ import annotations

import os
from pathlib import Path

from renaissance.data.readers.hf import is_datasets_folder, open_datasets_folder
from renaissance.data.readers.rows import ReadRecords, read_records
from renaissance.data.readers.tables import SUFFIXES, Table, open_table
from renaissance.errors import DataError
from renaissance.recipe.data import Columns
from renaissance.recipe.values import OnBadSample
from renaissance.spec import shown

USUAL_STEMS = ("captions", "metadata", "annotations", "results")


def read_images(
    path: Path, columns: Columns, *, cache: Path, on_bad_sample: OnBadSample, files_gone: bool = False
) -> ReadRecords:
    """Return the records of a folder, of a caption file, or of a `datasets` directory.

    files_gone: image files need not be there, as of images whose features are stored.

    Raises:
        DataError: it is none of these, a column is missing, or nothing can be used.
        SampleError: a row cannot be used, and `on_bad_sample` is "error".
    """
    return read_records(_table(path, cache), columns, on_bad_sample, files_gone=files_gone)


def _table(path: Path, cache: Path) -> Table:
    if not os.path.exists(path):  # unlike the method, it has an answer for names that no file can have
        raise DataError(
            f"There is no data at '{shown(path, 200)}'. Give a folder of images with a caption file, or that file."
        )
    if path.is_file():
        return open_table(path, cache)
    if is_datasets_folder(path):
        return open_datasets_folder(path)
    return open_table(caption_file(path), cache)


def caption_file(folder: Path) -> Path:
    """Return the caption file of a folder: the only one, or the only one with a usual name.

    Raises:
        DataError: there is none, or which one is meant cannot be told.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise DataError(
            f"The folder '{folder}' holds no caption file ({', '.join(SUFFIXES)}) and is no `datasets` directory. "
            "Write one with the columns 'image' and 'caption', a row for each caption."
        )
    for stem in USUAL_STEMS:
        named = [file for file in files if file.stem.lower() == stem]
        if len(named) == 1:
            return named[0]
    if len(files) > 1:
        names = ", ".join(f"'{file.name}'" for file in files[:10])
        raise DataError(f"The folder '{folder}' holds several caption files ({names}). Give the path of one of them.")
    return files[0]
