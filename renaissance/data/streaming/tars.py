"""webdataset shards: tar files, here or on the Hub, of which any sample can be read alone by means of an index.

Those on the Hub are never stored: each is read through once for its index, a block at a time, and then only the bytes
that a window of samples stands in. What a sample is, is said in `renaissance.data.readers.webdataset`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from renaissance.data.hashing import stable_hash
from renaissance.data.records import ImageSource, Record
from renaissance.data.streaming.hub_files import hub, patiently
from renaissance.data.streaming.shards import BytesImage, bad_record, record_of
from renaissance.data.streaming.tar_index import VERSION, indexed, summary, write_index
from renaissance.errors import DataError, SampleError

BLOCK = 2**22  # bytes of a tar file on the Hub that are held while it is indexed
SPAN = 2**25  # bytes that are asked for at a time, if no single sample has more

Row = Mapping[str, Any]
Place = Sequence[int]  # offset and size


@dataclass(frozen=True, slots=True)
class TarImage:
    """An image in a tar file, `size` bytes from `offset` on."""

    path: str
    offset: int
    size: int
    name: str

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            SampleError: the file is gone, or shorter than it was.
        """
        try:
            with open(self.path, "rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            raise SampleError(f"{self.name}: '{self.path}' cannot be read ({error.strerror or error}).") from None
        if len(data) < self.size:
            raise SampleError(f"{self.name}: '{self.path}' was changed. Start the training anew.")
        return data


@dataclass(frozen=True, slots=True)
class TarShard:
    """One tar file with its index."""

    path: Path
    name: str
    index: Path
    count: int

    @property
    def mark(self) -> str:
        """Name, samples and size."""
        return f"{self.name}:{self.count}:{self.path.stat().st_size}"

    def read(self, start: int, stop: int) -> list[Record]:
        """Return the samples from `start` up to `stop`: their captions, and where their images are.

        Raises:
            DataError: the file is gone.
        """
        rows = indexed(str(self.index)).slice(start, stop - start).to_pylist()

        def image(row: Row) -> ImageSource:
            offset, size = row["image"]
            return TarImage(str(self.path), offset, size, f"{self.path}, sample '{row['key']}'")

        try:
            with self.path.open("rb") as file:
                return [_record(self.name, row, lambda place: _bytes_at(file, place), image) for row in rows]
        except OSError as error:
            raise DataError(f"The shard '{self.path}' cannot be read ({error.strerror or error}).") from None


@dataclass(frozen=True, slots=True)
class HubTarShard:
    """One tar file on the Hub, at an address with a commit, with its index."""

    url: str
    index: Path
    count: int

    @property
    def name(self) -> str:
        """The path in the repository."""
        return _path_of(self.url)

    @property
    def mark(self) -> str:
        """The address, whose commit fixes the content."""
        return self.url

    def read(self, start: int, stop: int) -> list[Record]:
        """Return the samples from `start` up to `stop`, with their images.

        Raises:
            HubError: the file cannot be fetched.
        """
        rows = indexed(str(self.index)).slice(start, stop - start).to_pylist()
        records: list[Record] = []
        for first, last, group in _spans(rows):
            data = patiently(self.url, lambda: _range(self.url, first, last))  # noqa: B023  # called at once

            def content(place: Place, held: bytes = data, start: int = first) -> bytes:
                return held[place[0] - start : place[0] - start + place[1]]

            def image(row: Row, content: Callable[[Place], bytes] = content) -> ImageSource:
                return BytesImage(f"{self.url}, sample '{row['key']}'", content(row["image"]))

            records += [_record(self.name, row, content, image) for row in group]
        return records


def _record(name: str, row: Row, content: Callable[[Place], bytes], image: Callable[[Row], ImageSource]) -> Record:
    """Return the sample of a row of an index. content: the bytes at a place. image: that of a row which has one."""
    where = f"{name}, sample '{row['key']}'"
    if row["image"] is None:
        return bad_record(where, "it has no image")
    caption, told = (None if row[kind] is None else content(row[kind]) for kind in ("caption", "json"))
    captions = _captions(caption, told)
    if isinstance(captions, str):
        return bad_record(where, captions)
    return record_of(where, f"{name}/{row['key']}", image(row), captions)


def _bytes_at(file: IO[bytes], place: Place) -> bytes:
    file.seek(place[0])
    return file.read(place[1])


def _captions(caption: bytes | None, told: bytes | None) -> list[object] | str:
    """Return the captions of a sample, or what is wrong."""
    if caption is not None:
        return [caption.decode("utf-8", "surrogateescape")]
    if told is None:
        return "it has no caption"
    try:
        facts = json.loads(told.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        return "its .json holds no JSON object"
    values: object = next((facts[name] for name in ("caption", "captions") if facts.get(name) is not None), [])
    return list(values) if isinstance(values, list) else [values]


# --- here -------------------------------------------------------------------------------------------------------------


def tar_shard(path: Path, name: str, cache: Path) -> tuple[TarShard, tuple[str, ...]]:
    """Return a shard, and a line for each thing in it that cannot be used.

    Raises:
        DataError: it cannot be read at all.
    """
    state = path.stat()
    index = cache / f"tar-{VERSION}-{stable_hash(path.resolve(), state.st_size, state.st_mtime_ns):016x}.arrow"
    if not index.exists():
        try:
            with path.open("rb") as tar:
                write_index(tar, index)
        except OSError as error:
            raise DataError(f"The shard '{path}' cannot be indexed ({error.strerror or error}).") from None
    count, faults = summary(index)
    return TarShard(path, name, index, count), tuple(f"{name}: {fault}" for fault in faults)


# --- on the Hub -------------------------------------------------------------------------------------------------------


def hub_tar_shards(urls: Sequence[str], cache: Path) -> list[tuple[HubTarShard, tuple[str, ...]]]:
    """Return the shards at these addresses, each with a line for each thing in it that cannot be used.

    Raises:
        HubError: one cannot be fetched.
    """
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda url: _hub_tar_shard(url, cache), urls))


def _hub_tar_shard(url: str, cache: Path) -> tuple[HubTarShard, tuple[str, ...]]:
    index = cache / f"hub-tar-{VERSION}-{stable_hash(url):016x}.arrow"
    if not index.exists():
        patiently(url, lambda: _index_remote(url, index))
    count, faults = summary(index)
    return HubTarShard(url, index, count), tuple(f"{_path_of(url)}: {fault}" for fault in faults)


def _index_remote(url: str, index: Path) -> None:
    with hub().open(url, "rb", block_size=BLOCK, cache_type="readahead") as tar:
        write_index(tar, index)


def _range(url: str, first: int, last: int) -> bytes:
    """Return the bytes of a file from `first` up to `last`.

    Raises:
        OSError: there were fewer.
    """
    with hub().open(url, "rb", cache_type="none") as file:
        file.seek(first)
        data: bytes = file.read(last - first)
    if len(data) < last - first:
        raise OSError(f"{len(data):,} bytes came of {last - first:,}")
    return data


def _spans(rows: Sequence[Row]) -> Iterator[tuple[int, int, list[Row]]]:
    """Yield rows that follow each other, with the first and last byte that they stand in, of `SPAN` bytes at most."""
    group: list[Row] = []
    first = last = 0
    for row in rows:
        places = [row[kind] for kind in ("image", "caption", "json") if row[kind] is not None]
        begin, end = min(offset for offset, _ in places), max(offset + size for offset, size in places)
        if group and end - first > SPAN:
            yield first, last, group
            group = []
        if not group:
            first = begin
        group.append(row)
        last = max(last, end) if len(group) > 1 else end
    if group:
        yield first, last, group


def _path_of(url: str) -> str:
    """Return the path in its repository: hf://datasets/org/name@commit/path."""
    match = re.fullmatch(r"hf://datasets/[^/]+/[^/@]+@[^/]+/(.+)", url)
    assert match is not None, "`datasets` names files so"
    return match[1]
