"""Any folder of images with a file of captions (CSV, TSV, JSONL, Parquet), or one such folder for each split.

A directory that Hugging Face `datasets` saved (`save_to_disk`) is read as well, with its splits.

The columns are named or guessed as those of a recipe's data are; a column `split` says which split a row is of (else
`train`), a column `language` which language its captions are in. Rows of one image become one item, wherever they
stand: what was read waits in a temporary file on disk, not in memory.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from renaissance.data.layouts import Problems, RawImage, RawItem
from renaissance.data.prepared import is_prepared
from renaissance.data.readers.columns import Roles, find_roles, texts_of
from renaissance.data.readers.hf import is_datasets_folder, open_datasets_folder
from renaissance.data.readers.sources import ArrowImage
from renaissance.data.readers.tables import SUFFIXES, BadRow, Row, Table, open_table
from renaissance.data.readers.tabular import caption_file
from renaissance.data.readers.texts import clean_texts
from renaissance.errors import DataError
from renaissance.recipe.data import Columns

SPLIT = "split"


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each image, in the order of their first rows; its id is its column of ids, else its path.

    Raises:
        DataError: there is no file of captions, or what its columns hold cannot be guessed.
        SampleError: a row cannot be used, and bad samples are errors.
    """
    for file, split in _files(root):
        with tempfile.TemporaryDirectory() as space, closing(sqlite3.connect("")) as rows:
            table = _opened(root, file, Path(space))
            roles = find_roles(table, Columns())
            _collect(rows, table, roles, split, problems)
            yield from _items(rows, root, roles)


def _files(root: Path) -> list[tuple[Path, str]]:
    """Return what holds the captions, and the split that each is of where its rows do not say."""
    if is_datasets_folder(root):
        return [(root, "train")]
    if _has_table(root):
        return [(caption_file(root), "train")]
    # what was prepared earlier, or is being prepared, may lie here too
    inside = (path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith("."))
    folders = [folder for folder in inside if not is_prepared(folder) and _has_table(folder)]
    if not folders:
        raise DataError(
            f"Neither '{root}' nor a folder in it has a file of captions ({', '.join(SUFFIXES)}). "
            "Write one with the columns 'image' and 'caption', a row for each caption."
        )
    return [(caption_file(folder), folder.name) for folder in folders]


def _opened(root: Path, file: Path, space: Path) -> Table:
    """Open a table, named by where it is below the root; images inside of a Parquet file are taken out into `space`."""
    if file == root:
        return open_datasets_folder(root)
    table = open_table(file, space)
    return replace(table, name=file.relative_to(root).as_posix())


def _has_table(folder: Path) -> bool:
    return any(file.suffix.lower() in SUFFIXES and file.is_file() for file in folder.iterdir())


def _collect(rows: sqlite3.Connection, table: Table, roles: Roles, split: str, problems: Problems) -> None:
    """Note the rows that can be used, each with the number of the first row of its image."""
    rows.execute("CREATE TABLE firsts (key TEXT PRIMARY KEY, first INTEGER) WITHOUT ROWID")
    rows.execute(
        "CREATE TABLE rows (first INTEGER, number INTEGER, found TEXT, PRIMARY KEY (first, number)) WITHOUT ROWID"
    )
    for number, row in enumerate(table.rows(), start=1):
        name = f"{table.name}, row {number}"
        if isinstance(row, BadRow):
            problems.report(name, row.reason)
            continue
        found = _found(row, roles, name, split, problems)
        if found is None:
            continue
        key = json.dumps([found["split"], found["image"]])
        rows.execute("INSERT OR IGNORE INTO firsts VALUES (?, ?)", (key, number))
        (first,) = rows.execute("SELECT first FROM firsts WHERE key = ?", (key,)).fetchone()
        rows.execute("INSERT INTO rows VALUES (?, ?, ?)", (first, number, json.dumps(found)))


def _found(row: Row, roles: Roles, name: str, split: str, problems: Problems) -> dict[str, Any] | None:
    cell = row.get(roles.image)
    if not isinstance(cell, ArrowImage | str) or not cell or (isinstance(cell, str) and "\0" in cell):
        problems.report(name, "it has no image")
        return None
    cells = [text for column in roles.captions for text in texts_of(row.get(column))]
    if len(cells) > 1:
        # a shorter list in a table of several caption columns leaves the rest of them null
        cells = [text for text in cells if text is not None]
    texts = clean_texts(cells, name, problems)
    if not texts:
        if not cells:
            problems.report(name, "it has no caption")
        return None
    taken = {roles.image, roles.id, SPLIT, *roles.captions}
    return {
        "row": name,
        "split": _word(row.get(SPLIT)) or split,
        "image": asdict(cell) if isinstance(cell, ArrowImage) else cell,
        "id": _word(row.get(roles.id)) if roles.id else None,
        "texts": texts,
        "fields": {column: word for column in row if column not in taken and (word := _word(row[column]))},
    }


def _items(rows: sqlite3.Connection, root: Path, roles: Roles) -> Iterator[RawItem]:
    order = rows.execute("SELECT first, found FROM rows ORDER BY first, number")
    for _, group in groupby(order, key=itemgetter(0)):
        found = [json.loads(text) for _, text in group]
        first = found[0]
        image = _image(first["image"], first["row"], root, roles.folder)
        ids = {row["id"] for row in found}
        # where the rows of an image differ in it, the column counts captions
        own = first["id"] if len(ids) == 1 else None
        yield RawItem(
            split=first["split"],
            id=image.id if own is None else own,
            row=first["row"],
            images=(image,),
            texts=tuple(dict.fromkeys(text for row in found for text in row["texts"])),
            fields=first["fields"],
        )


def _image(cell: str | Mapping[str, Any], row: str, root: Path, folder: Path) -> RawImage:
    """Return the image in a cell; an encoded one is named by its row."""
    if isinstance(cell, str):
        path = Path(os.path.normpath(folder / cell))
        return RawImage(Path(os.path.relpath(path, root)).as_posix(), path)
    return RawImage(row, root / row, ArrowImage(**cell).read())


def _word(value: object) -> str | None:
    """Return a text, number or truth value as text; None for anything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) and value == value and value != "" else None
