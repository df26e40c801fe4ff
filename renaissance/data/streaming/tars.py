"""webdataset shards: an index of each tar file says where its samples are, so that any of them can be read alone.

The index is made once, from the headers, and kept. What a sample is, is said in `renaissance.data.readers.webdataset`.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

import pyarrow as pa

from renaissance.data.hashing import stable_hash
from renaissance.data.readers.webdataset import IMAGES, MAX_IMAGE, MAX_TEXT, TEXTS
from renaissance.data.records import Record
from renaissance.data.streaming.shards import bad_record, record_of
from renaissance.errors import DataError, SampleError

VERSION = 1
ROWS = 10_000
_PLACE = pa.list_(pa.int64(), 2)  # offset and size
SCHEMA = pa.schema([("key", pa.string()), ("image", _PLACE), ("caption", _PLACE), ("json", _PLACE)])


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
        rows = _indexed(str(self.index)).slice(start, stop - start).to_pylist()
        try:
            with self.path.open("rb") as file:
                return [self._record(file, row) for row in rows]
        except OSError as error:
            raise DataError(f"The shard '{self.path}' cannot be read ({error.strerror or error}).") from None

    def _record(self, file: IO[bytes], row: Mapping[str, Any]) -> Record:
        where = f"{self.name}, sample '{row['key']}'"
        if row["image"] is None:
            return bad_record(where, "it has no image")
        offset, size = row["image"]
        image = TarImage(str(self.path), offset, size, f"{self.path}, sample '{row['key']}'")
        captions = _captions(_content(file, row["caption"]), _content(file, row["json"]))
        if isinstance(captions, str):
            return bad_record(where, captions)
        return record_of(where, f"{self.name}/{row['key']}", image, captions)


def _content(file: IO[bytes], place: list[int] | None) -> bytes | None:
    if place is None:
        return None
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


@lru_cache(maxsize=64)
def _indexed(file: str) -> Any:
    return pa.ipc.open_file(pa.memory_map(file)).read_all()


# --- the index --------------------------------------------------------------------------------------------------------


def tar_shard(path: Path, name: str, cache: Path) -> tuple[TarShard, tuple[str, ...]]:
    """Return a shard, and a line for each thing in it that cannot be used.

    Raises:
        DataError: it cannot be read at all.
    """
    state = path.stat()
    index = cache / f"tar-{VERSION}-{stable_hash(path.resolve(), state.st_size, state.st_mtime_ns):016x}.arrow"
    if not index.exists():
        try:
            _write_index(path, index)
        except OSError as error:
            raise DataError(f"The shard '{path}' cannot be indexed ({error.strerror or error}).") from None
    with pa.memory_map(str(index)) as file:
        reader = pa.ipc.open_file(file)
        count = sum(reader.get_batch(number).num_rows for number in range(reader.num_record_batches))
        faults = json.loads(reader.get_batch(reader.num_record_batches - 1).schema.metadata[b"faults"])
    return TarShard(path, name, index, count), tuple(f"{name}: {fault}" for fault in faults)


@dataclass(slots=True)
class _Sample:
    """The members of one key: offset and size."""

    key: str
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def row(self) -> dict[str, object]:
        caption = self.places.get("txt") or self.places.get("caption")
        return {"key": self.key, "image": self.places.get("image"), "caption": caption, "json": self.places.get("json")}


def _write_index(path: Path, index: Path) -> None:
    index.parent.mkdir(parents=True, exist_ok=True)
    faults: list[str] = []
    rows = [sample.row() for sample in _samples(path, faults)]
    schema = SCHEMA.with_metadata({"faults": json.dumps(faults[:1000])})
    with NamedTemporaryFile(dir=index.parent, suffix=".tmp", delete=False) as file:
        try:
            with pa.ipc.new_file(file, schema) as stream:
                for start in range(0, max(len(rows), 1), ROWS):
                    stream.write_batch(pa.RecordBatch.from_pylist(rows[start : start + ROWS], schema=schema))
        except BaseException:
            os.unlink(file.name)
            raise
    os.replace(file.name, index)


def _samples(path: Path, faults: list[str]) -> Iterator[_Sample]:
    """Yield the samples of a shard: members of one key stand together. A truncated shard's last one is left out."""
    sample: _Sample | None = None
    whole = _ends_as_it_should(path)
    if not whole:
        faults.append("the shard is truncated: the mark at its end is missing")
    try:
        for key, kind, place in _members(path, faults):
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                sample = _Sample(key)
            sample.places[kind] = place
    except (tarfile.TarError, EOFError) as error:
        if whole:
            faults.append(f"the shard is damaged ({error})")
        return
    if sample is not None and whole:
        yield sample


def _members(path: Path, faults: list[str]) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Yield key, kind ("image" or a suffix of texts) and place of the members that samples are made of."""
    with tarfile.open(path, "r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # else it remembers each one that it has passed
            folder, slash, file = member.name.rpartition("/")
            stem, _, suffix = file.partition(".")
            kind = "image" if suffix.lower() in IMAGES else suffix.lower()
            if kind != "image" and kind not in TEXTS:
                continue
            if not member.isreg() or member.issparse() or folder.startswith("/") or ".." in folder.split("/"):
                faults.append(f"the member '{member.name}' is no plain file inside of the archive")
            elif member.size > (MAX_IMAGE if kind == "image" else MAX_TEXT):
                faults.append(f"the member '{member.name}' is too large ({member.size:,} bytes)")
            else:
                yield f"{folder}{slash}{stem}", kind, (member.offset_data, member.size)
        with path.open("rb") as raw:
            raw.seek(archive.offset)
            # tarfile takes a header that it cannot read for the end
            if raw.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"no header at byte {archive.offset:,}")


def _ends_as_it_should(path: Path) -> bool:
    """Return whether a shard ends as each tar file does; without, one that was cut between two members looks intact."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * tarfile.BLOCKSIZE))
        return file.read() == bytes(2 * tarfile.BLOCKSIZE)
