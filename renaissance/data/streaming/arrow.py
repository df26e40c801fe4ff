"""Shards of a Hugging Face `datasets` directory: Arrow files, mapped into memory; images stay where they are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from renaissance.data.readers.hf import saved_files
from renaissance.data.readers.sources import ArrowImage, arrow_batches
from renaissance.data.readers.tables import holds_images
from renaissance.data.records import Record
from renaissance.data.streaming.shards import TableColumns, find_columns, missing_column
from renaissance.recipe.data import Columns


@dataclass(frozen=True, slots=True)
class ArrowShard:
    """One Arrow file."""

    path: Path
    columns: TableColumns

    @property
    def name(self) -> str:
        """The file."""
        return self.path.name

    @property
    def count(self) -> int:
        """Its rows."""
        return _starts(str(self.path))[-1]

    @property
    def mark(self) -> str:
        """Name, rows and size."""
        return f"{self.name}:{self.count}:{self.path.stat().st_size}"

    def read(self, start: int, stop: int) -> list[Record]:
        """Return the rows from `start` up to `stop`.

        Raises:
            DataError: the file is damaged, or lacks a column.
        """
        starts = _starts(str(self.path))
        records: list[Record] = []
        while start < stop:
            place = bisect_right(starts, start) - 1
            end = min(stop, starts[place + 1])
            cells = self._cells(place, start - starts[place], end - starts[place])
            for number, row in enumerate(cells, start=start + 1):
                records.append(self.columns.record(f"{self.name}, row {number}", row, f"{self.path}, row {number}"))
            start = end
        return records

    def _cells(self, place: int, start: int, stop: int) -> list[Mapping[str, object]]:
        batch = arrow_batches(str(self.path))[place]
        fault = missing_column(self.name, self.columns.names, batch.schema.names)
        if fault is not None:
            raise fault
        part = batch.slice(start, stop - start)
        cells = {name: self._column(part, name, place, start) for name in self.columns.names}
        return [dict(zip(cells, values, strict=True)) for values in zip(*cells.values(), strict=True)]

    def _column(self, part: Any, name: str, place: int, start: int) -> list[object]:
        column = part.column(name)
        if name != self.columns.image or not holds_images(column.type):
            return list(column.to_pylist())
        whole = arrow_batches(str(self.path))[place].column(name)
        encoded = whole.field("bytes") if hasattr(whole, "field") else whole
        there = encoded.slice(start, len(column)).is_valid().to_pylist()
        return [
            ArrowImage(
                str(self.path), name, place, start + row, f"{self.path}, batch {place + 1}, row {start + row + 1}"
            )
            if inside
            else None
            for row, inside in enumerate(there)
        ]


@lru_cache(maxsize=4096)
def _starts(file: str) -> Sequence[int]:
    """Return the first row of each record batch, and the number of all rows at the end."""
    return [0, *accumulate(batch.num_rows for batch in arrow_batches(file))]


def arrow_shards(folder: Path, split: str, given: Columns) -> tuple[list[ArrowShard], tuple[str, ...]]:
    """Return the Arrow files of a split of a `datasets` directory, and what was guessed.

    Raises:
        DataError: there is no such split, a file is missing or damaged, or a column cannot be found.
    """
    files = [file for file in saved_files(folder, split) if _starts(str(file))[-1]]
    if not files:
        return [], ()
    first = arrow_batches(str(files[0]))[0]
    columns, facts = find_columns(
        folder.name, first.schema.names, first.slice(0, 20).to_pylist(), given, files[0].parent
    )
    return [ArrowShard(file, columns) for file in files], facts
