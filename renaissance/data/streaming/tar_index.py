"""The index of a tar file: where its samples are, so that any of them can be read alone.

It is made once, from the headers, and kept. Nothing is unpacked: a link, a device, a sparse file or a path that leaves
the archive is a fault that is told of, and members that no sample is made of are passed over.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

import pyarrow as pa

from renaissance.data.readers.webdataset import IMAGES, MAX_IMAGE, MAX_TEXT, TEXTS, headers, is_plain

VERSION = 2
ROWS = 10_000
_PLACE = pa.list_(pa.int64(), 2)  # offset and size
SCHEMA = pa.schema([("key", pa.string()), ("image", _PLACE), ("caption", _PLACE), ("json", _PLACE)])


@lru_cache(maxsize=64)
def indexed(index: str) -> Any:
    """Return the table of an index: key, and offset and size of image, caption and json."""
    return pa.ipc.open_file(pa.memory_map(index)).read_all()


def summary(index: Path) -> tuple[int, tuple[str, ...]]:
    """Return the number of samples in an index, and a line for each thing in the tar file that cannot be used."""
    with pa.memory_map(str(index)) as file:
        reader = pa.ipc.open_file(file)
        count = sum(reader.get_batch(number).num_rows for number in range(reader.num_record_batches))
        return count, tuple(json.loads(reader.schema.metadata[b"faults"]))


def write_index(tar: IO[bytes], index: Path) -> None:
    """Write the index of an open tar file, whole or not at all.

    Raises:
        OSError: it cannot be read or written.
    """
    index.parent.mkdir(parents=True, exist_ok=True)
    faults: list[str] = []
    rows = [sample.row() for sample in _samples(tar, faults)]
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


@dataclass(slots=True)
class _Sample:
    """The members of one key: offset and size."""

    key: str
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def row(self) -> dict[str, object]:
        caption = self.places.get("txt") or self.places.get("caption")
        return {"key": self.key, "image": self.places.get("image"), "caption": caption, "json": self.places.get("json")}


def _samples(tar: IO[bytes], faults: list[str]) -> Iterator[_Sample]:
    """Yield the samples of a shard: members of one key stand together. A truncated shard's last one is left out."""
    sample: _Sample | None = None
    seen: set[str] = set()
    whole = _ends_as_it_should(tar)
    if not whole:
        faults.append("the shard is truncated: the mark at its end is missing")
    try:
        for key, kind, place in _members(tar, faults):
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                # two samples of one name would be one to all that is drawn or told apart by it
                sample = None if key in seen else _Sample(key)
                if sample is None:
                    faults.append(f"the sample '{key}' stands twice")
                    continue
                seen.add(key)
            if kind in sample.places:
                faults.append(f"the sample '{key}' has two members of one kind ({kind})")
            sample.places.setdefault(kind, place)
    except (tarfile.TarError, EOFError) as error:
        if whole:
            faults.append(f"the shard is damaged ({error})")
        return
    if sample is not None and whole:
        yield sample


def _members(tar: IO[bytes], faults: list[str]) -> Iterator[tuple[str, str, tuple[int, int]]]:
    """Yield key, kind ("image" or a suffix of texts) and place of the members that samples are made of."""
    size = tar.seek(0, os.SEEK_END)
    tar.seek(0)
    with tarfile.open(fileobj=tar, mode="r:") as archive:
        for member in headers(archive, size):
            folder, slash, file = member.name.rpartition("/")
            stem, _, suffix = file.partition(".")
            kind = "image" if suffix.lower() in IMAGES else suffix.lower()
            if kind != "image" and kind not in TEXTS:
                continue
            if not is_plain(member):
                faults.append(f"the member '{member.name}' is no plain file inside of the archive")
            elif member.size > (MAX_IMAGE if kind == "image" else MAX_TEXT):
                faults.append(f"the member '{member.name}' is too large ({member.size:,} bytes)")
            else:
                yield f"{folder}{slash}{stem}", kind, (member.offset_data, member.size)


def _ends_as_it_should(tar: IO[bytes]) -> bool:
    """Return whether a shard ends as each tar file does; without, one that was cut between two members looks intact."""
    size = tar.seek(0, os.SEEK_END)
    tar.seek(max(0, size - 2 * tarfile.BLOCKSIZE))
    return tar.read() == bytes(2 * tarfile.BLOCKSIZE)
