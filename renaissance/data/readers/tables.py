"""Tables, whatever they are stored as: names of columns, and rows that are read one at a time.

A row is a dict of what its cells hold; a cell with an encoded image holds an `ArrowImage` in its place.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from renaissance.data.hashing import stable_hash
from renaissance.data.readers.sources import ArrowImage, arrow_batches
from renaissance.errors import DataError

Row = Mapping[str, object]
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
SAMPLE_ROWS = 100
MAX_CELL = 2**24


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read; `reason` follows its number in an error message."""

    reason: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of images and captions. Paths in its cells are below `folder`."""

    name: str
    folder: Path
    columns: tuple[str, ...]
    rows: Callable[[], Iterator[Row | BadRow]]

    def sample(self) -> list[Row]:
        """Return the first rows that can be read, to guess from."""
        return [row for row in islice(self.rows(), SAMPLE_ROWS) if not isinstance(row, BadRow)]


def open_table(path: Path, cache: Path) -> Table:
    """Open a CSV, TSV, JSONL or Parquet file; images inside of a Parquet file are copied to `cache`, once.

    Raises:
        DataError: the file is none of these, or is damaged.
    """
    match path.suffix.lower():
        case ".csv" | ".tsv":
            return _delimited(path)
        case ".jsonl" | ".ndjson":
            return _json_lines(path)
        case ".parquet":
            return _parquet(path, cache)
    raise DataError(f"'{path}' is not a caption file. Give one that ends in {', '.join(SUFFIXES)}.")


# --- CSV and TSV ----------------------------------------------------------------------------------------------------


def _delimited(path: Path) -> Table:
    lines = _lines(path)
    header = next(lines, "")
    lines.close()
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t|", key=header.count)

    def rows() -> Iterator[Row | BadRow]:
        reader = _reader(path, delimiter)
        next(reader, None)
        for cells in reader:
            if cells and len(cells) != len(columns):
                yield BadRow(f"{len(cells)} values for {len(columns)} columns; put quotes around commas and line ends")
            elif cells:
                yield dict(zip(columns, cells, strict=True))

    columns = tuple(name.strip() for name in next(_reader(path, delimiter), ()))
    repeated = {name for name in columns if columns.count(name) > 1}
    if repeated:
        raise DataError(
            f"{path.name}: the column '{min(repeated)}' stands twice in the first line. Rename one of them."
        )
    return Table(path.name, path.parent, columns, rows)


def _reader(path: Path, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_CELL)
    try:
        yield from csv.reader(_lines(path), delimiter=delimiter)
    except csv.Error as error:
        raise DataError(f"{path.name}: not a table of values separated by {delimiter!r} ({error}).") from None


def _lines(path: Path) -> Any:
    """Yield the lines of a UTF-8 file, line ends kept, a byte order mark removed."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name}: not UTF-8 text ({error.reason}). Save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror or error}).") from None


# --- JSONL ----------------------------------------------------------------------------------------------------------


def _json_lines(path: Path) -> Table:
    def rows() -> Iterator[Row | BadRow]:
        for line in _lines(path):
            if line.strip():
                yield _json_row(line)

    table = Table(path.name, path.parent, (), rows)
    # a key may be left out where it has no value, so the first row alone does not tell the columns
    columns = dict.fromkeys(name for row in table.sample() for name in row)
    return Table(path.name, path.parent, tuple(columns), rows)


def _json_row(line: str) -> Row | BadRow:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRow(f"not JSON ({error})")
    return row if isinstance(row, dict) else BadRow("not a JSON object")


# --- Parquet and Arrow ----------------------------------------------------------------------------------------------


def _parquet(path: Path, cache: Path) -> Table:
    with _reading(path):
        schema = pq.read_schema(path)
    if any(holds_images(field.type) for field in schema):
        return arrow_table([_as_arrow(path, cache)], name=path.name, folder=path.parent)

    def rows() -> Iterator[Row]:
        with _reading(path):
            for batch in pq.ParquetFile(path).iter_batches(batch_size=1024):
                yield from batch.to_pylist()

    return Table(path.name, path.parent, tuple(schema.names), rows)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a damaged file into an error that names it."""
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: not a Parquet file, or damaged ({' '.join(str(error).split())}).") from None


def _as_arrow(path: Path, cache: Path) -> Path:
    """Return an Arrow copy of a Parquet file, from which single images can be read; it is made once."""
    state = path.stat()
    target = cache / f"parquet-{stable_hash(path.resolve(), state.st_size, state.st_mtime_ns):016x}.arrow"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=cache, suffix=".tmp", delete=False) as file:
            try:
                with _reading(path), pa.ipc.new_stream(file, pq.read_schema(path)) as stream:
                    for batch in pq.ParquetFile(path).iter_batches(batch_size=256):
                        stream.write_batch(batch)
            except BaseException:
                os.unlink(file.name)
                raise
        os.replace(file.name, target)
    return target


def arrow_table(files: Iterable[Path], *, name: str, folder: Path) -> Table:
    """Return the table in these Arrow stream files, one after the other.

    Raises:
        DataError: a file is missing or damaged, or their columns differ.
    """
    paths = [str(file) for file in files]
    schemas = {file: [field for batch in arrow_batches(file)[:1] for field in batch.schema] for file in paths}
    columns = dict.fromkeys(field.name for fields in schemas.values() for field in fields)
    for file, fields in schemas.items():
        if fields and [field.name for field in fields] != list(columns):
            raise DataError(f"{name}: the columns of '{file}' are not those of the files before it.")
    return Table(name, folder, tuple(columns), lambda: _arrow_rows(paths, name))


def _arrow_rows(files: list[str], name: str) -> Iterator[Row]:
    number = 0
    for file in files:
        for place, batch in enumerate(arrow_batches(file)):
            cells = {field.name: _cells(file, place, batch, field, name, number) for field in batch.schema}
            for values in zip(*cells.values(), strict=True):
                yield dict(zip(cells, values, strict=True))
            number += batch.num_rows


def _cells(file: str, place: int, batch: Any, field: Any, name: str, number: int) -> list[object]:
    """Return a column's values; in place of an encoded image, which stays in the file, where it is."""
    column = batch.column(field.name)
    if not holds_images(field.type):
        values: list[object] = column.to_pylist()
        return values
    encoded = column.field("bytes") if pa.types.is_struct(field.type) else column
    there = encoded.is_valid().to_pylist()
    paths = column.field("path").to_pylist() if _has_path(field.type) else [None] * len(there)
    return [
        ArrowImage(file, field.name, place, row, f"{name}, row {number + row + 1}") if inside else path
        for row, (inside, path) in enumerate(zip(there, paths, strict=True))
    ]


def holds_images(kind: Any) -> bool:
    """Whether a column of this Arrow type holds encoded files: bytes, or a struct of bytes and path."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)
    return _is_bytes(kind)


def _is_bytes(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _has_path(kind: Any) -> bool:
    return bool(pa.types.is_struct(kind) and any(field.name == "path" for field in kind))
