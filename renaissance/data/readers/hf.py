"""Hugging Face `datasets` directories, as `save_to_disk` writes them: Arrow files, and JSON that lists them.

The Arrow files are mapped into memory and read here directly: images stay encoded, as `Image(decode=False)` gives
them, until the one decoder of this project decodes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from renaissance.data.readers.tables import BadRow, Row, Table, arrow_table
from renaissance.errors import DataError

SPLIT = "split"


def is_datasets_folder(path: Path) -> bool:
    """Whether `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote this folder."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def open_datasets_folder(path: Path) -> Table:
    """Open a saved `Dataset` or `DatasetDict`; of the latter, all splits, named in the column 'split'.

    Raises:
        DataError: a file is missing or damaged, or the splits have different columns.
    """
    if not (path / "dataset_dict.json").is_file():
        return _saved_dataset(path)
    names = _described(path / "dataset_dict.json", "splits", str)
    parts = {name: _saved_dataset(path / name) for name in names}
    if not parts:
        raise DataError(f"'{path}' is a `datasets` directory without splits.")
    columns = next(iter(parts.values())).columns
    for name, part in parts.items():
        if part.columns != columns:
            raise DataError(f"'{path}': the columns of split '{name}' are not those of '{names[0]}'. Give one split.")
    if SPLIT in columns:
        return Table(path.name, path, columns, lambda: (row for part in parts.values() for row in part.rows()))
    return Table(path.name, path, (*columns, SPLIT), lambda: _with_split(parts))


def _with_split(parts: dict[str, Table]) -> Iterator[Row | BadRow]:
    for name, part in parts.items():
        for row in part.rows():
            yield row if isinstance(row, BadRow) else {**row, SPLIT: name}


def _saved_dataset(path: Path) -> Table:
    return arrow_table(_arrow_files(path), name=path.name, folder=path)


def saved_files(path: Path, split: str) -> list[Path]:
    """Return the Arrow files of a split of a saved `DatasetDict`, or of a saved `Dataset`, which is called 'train'.

    Raises:
        DataError: there is no such split, or what lists the files is damaged.
    """
    whole = not (path / "dataset_dict.json").is_file()
    names = ["train"] if whole else _described(path / "dataset_dict.json", "splits", str)
    if split not in names:
        raise DataError(f"'{path}' has no split '{split}'; it has: {', '.join(names) or 'none'}.")
    return _arrow_files(path if whole else path / split)


def _arrow_files(path: Path) -> list[Path]:
    files = [entry.get("filename") for entry in _described(path / "state.json", "_data_files", dict)]
    if not all(isinstance(name, str) and Path(name).name == name for name in files):
        raise DataError(f"'{path / 'state.json'}' lists files outside of its folder. Save the data set again.")
    return [path / name for name in files]


def _described(file: Path, key: str, kind: type) -> list[Any]:
    """Return the list under `key` in a JSON file."""
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        raise DataError(f"'{file}' is missing or damaged. Save the data set again with `save_to_disk`.") from None
    if not isinstance(listed, list) or not all(isinstance(item, kind) for item in listed):
        raise DataError(f"'{file}' is damaged: '{key}' is no list of {kind.__name__}. Save the data set again.")
    return listed
