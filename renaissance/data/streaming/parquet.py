"""Parquet shards, here or on the Hub: a sample costs the reading of its row group, which is kept for the next ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from renaissance.data.hashing import stable_hash
from renaissance.data.records import Record
from renaissance.data.streaming.hub_files import HUB, hub, patiently
from renaissance.data.streaming.shards import TableColumns, bad_record, find_columns, missing_column
from renaissance.durable import write_atomically
from renaissance.errors import DataError
from renaissance.recipe.data import Columns
from renaissance.recipe.values import OnBadSample

Value = TypeVar("Value")

GROUPS_KEPT = 8  # as many as places are read at a time


@dataclass(frozen=True, slots=True)
class ParquetShard:
    """One Parquet file; `groups` are the rows of its row groups. url: a path, or "hf://datasets/..." with a commit."""

    url: str
    groups: tuple[int, ...]
    columns: TableColumns
    on_bad_sample: OnBadSample = "error"

    @property
    def name(self) -> str:
        """The file."""
        return self.url.rpartition("/")[2]

    @property
    def count(self) -> int:
        """Its rows."""
        return sum(self.groups)

    @property
    def mark(self) -> str:
        """The address on the Hub, whose commit fixes the content; name, rows and size of a file."""
        return self.url if self.url.startswith(HUB) else f"{self.name}:{self.count}:{Path(self.url).stat().st_size}"

    def read(self, start: int, stop: int) -> list[Record]:
        """Return the rows from `start` up to `stop`; where bad samples are skipped, bad ones of a damaged row group.

        Raises:
            DataError: the file is damaged and bad samples are errors, or it lacks a column.
            HubError: it cannot be fetched.
        """
        records: list[Record] = []
        for group, (end, rows) in enumerate(zip(accumulate(self.groups), self.groups, strict=True)):
            first, last = max(start, end - rows), min(stop, end)
            if first >= last:
                continue
            names = [f", row {number + 1}" for number in range(first, last)]
            try:
                whole = _row_group(self.url, group, tuple(self.columns.names))
            except DamagedError as error:
                if self.on_bad_sample == "error":
                    raise
                records += [bad_record(self.name + name, str(error).removesuffix(".")) for name in names]
                continue
            part = whole.slice(first - (end - rows), last - first).to_pylist()
            for name, row in zip(names, part, strict=True):
                records.append(self.columns.record(self.name + name, row, self.url + name))
        return records


class DamagedError(DataError):
    """A file is no Parquet file, or damaged."""


@lru_cache(maxsize=GROUPS_KEPT)
def _row_group(url: str, group: int, columns: tuple[str, ...]) -> Any:
    def read(file: pq.ParquetFile) -> Any:
        fault = missing_column(url.rpartition("/")[2], columns, file.schema_arrow.names)
        if fault is not None:
            raise fault
        return file.read_row_group(group, columns=list(columns), use_threads=False)

    return _reading(url, read)


def _reading(url: str, read: Callable[[pq.ParquetFile], Value]) -> Value:
    """Open a file, and read from it.

    Raises:
        DamagedError: it is no Parquet file, or damaged.
        HubError: it cannot be fetched.
    """
    if not url.startswith(HUB):
        try:
            with pq.ParquetFile(url, memory_map=True) as file:
                return read(file)
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            raise _damaged(url, error) from None

    def once() -> Value:
        try:
            with hub().open(url, "rb") as remote, pq.ParquetFile(remote) as file:
                return read(file)
        except pa.ArrowInvalid as error:
            raise _damaged(url, error) from None

    return patiently(url, once, also=(pa.ArrowException, UnicodeDecodeError))


def _damaged(url: str, error: Exception) -> DamagedError:
    fault = " ".join(str(error).split())
    return DamagedError(f"'{url}' is not a Parquet file, or damaged ({fault}). Download it again.")


def parquet_shards(
    name: str, urls: Sequence[str], given: Columns, *, cache: Path, on_bad_sample: OnBadSample
) -> tuple[list[ParquetShard], tuple[str, ...]]:
    """Return the shards at these addresses, and what was guessed of their columns; only their ends are read.

    Raises:
        DataError: one is damaged, or a column cannot be found.
        HubError: one cannot be fetched.
    """
    sizes = _sizes(urls, cache)
    full = [(url, groups) for url, groups in zip(urls, sizes, strict=True) if sum(groups)]
    if not full:
        return [], ()
    first = full[0][0]
    folder = None if first.startswith(HUB) else Path(first).parent
    names, rows = _reading(first, _first_rows)
    columns, facts = find_columns(name, names, rows, given, folder)
    return [ParquetShard(url, groups, columns, on_bad_sample) for url, groups in full], facts


def _first_rows(file: pq.ParquetFile) -> tuple[list[str], list[Mapping[str, object]]]:
    batch = next(file.iter_batches(batch_size=20, row_groups=[0], use_threads=False))
    return list(batch.schema.names), batch.to_pylist()


def _sizes(urls: Sequence[str], cache: Path) -> list[tuple[int, ...]]:
    """Return the rows of each row group of each file; those of files of a commit are looked up once."""
    known = cache / f"stream-sizes-{stable_hash(*urls):016x}.json"
    fixed = all(url.startswith(HUB) for url in urls)
    if fixed and known.is_file():
        return [tuple(groups) for groups in json.loads(known.read_text(encoding="utf-8"))]
    with ThreadPoolExecutor(8 if fixed else 1) as pool:
        sizes = list(pool.map(lambda url: _reading(url, _groups), urls))
    if fixed:
        known.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(known, json.dumps(sizes))
    return sizes


def _groups(file: pq.ParquetFile) -> tuple[int, ...]:
    return tuple(file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups))
