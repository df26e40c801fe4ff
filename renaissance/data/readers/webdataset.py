"""webdataset shards: tar files in which members that share a key are one sample: `key.jpg`, `key.txt`, `key.json`.

The caption is `txt` or `caption`, else in the keys `caption` or `captions` of `json`, whose other values
become fields. Shards in a folder below the root are of the split that the folder is named for; others of the one that
their name begins with (`val-00000.tar`), else of `train`. Nothing is unpacked to disk, and nothing is followed.

| what a shard holds | outcome |
|---|---|
| an absolute path, or one with `..`; a link of either kind, a device, a pipe, a folder, a sparse file | refused |
| an image of more than 256 MB, a text of more than 16 MB, as the header claims | refused, unread |
| two members of one kind in a sample, such as `0.jpg` and `0.png` | the second is refused |
| a sample that comes again later in the shard | the second is refused |
| members of any other kind: `.pkl`, `.pyd`, `.npy`, `.cls` | passed over, unread |
| more than a million members | what comes after them is refused |
| a shard that ends early, or has a damaged header | its whole samples up to there; told of |
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renaissance.data.layouts import Problems, RawImage, RawItem
from renaissance.data.readers.texts import clean_texts
from renaissance.errors import DataError

IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
TEXTS = frozenset({"txt", "caption", "json"})
MAX_IMAGE = 2**28  # bytes
MAX_TEXT = 2**24
MAX_MEMBERS = 1_000_000  # of a shard; they have some thousands of samples
_SPLIT = re.compile(r"(train|val|valid|validation|dev|test)(?=[-_.])")


@dataclass(slots=True)
class _Sample:
    """The members of one key."""

    key: str
    image: tuple[str, bytes] | None = None
    texts: dict[str, bytes] = field(default_factory=dict)


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each sample, shard by shard; its id is its key.

    Raises:
        DataError: there is no shard.
        SampleError: a sample or shard cannot be used, and bad samples are errors.
    """
    shards = sorted([*root.glob("*.tar"), *root.glob("*/*.tar")])
    if not shards:
        raise DataError(f"Neither '{root}' nor a folder in it has a shard (*.tar). Give the folder of the shards.")
    for shard in shards:
        where = shard.relative_to(root)
        named = _SPLIT.match(shard.name)
        split = where.parts[0] if len(where.parts) > 1 else named.group() if named else "train"
        for sample in _samples(shard, where.as_posix(), problems):
            item = _item(sample, shard, f"{where.as_posix()}, sample '{sample.key}'", split, problems)
            if item is not None:
                yield item


def _samples(shard: Path, name: str, problems: Problems) -> Iterator[_Sample]:
    """Yield the samples of a shard: members of one key stand together. A truncated shard's last one is left out."""
    sample: _Sample | None = None
    whole = _is_whole(shard)
    if not whole:
        problems.report(name, "the shard is truncated: the mark at its end is missing")
    try:
        for member, data in _members(shard, name, problems):
            key, _, suffix = _split_name(member)
            if sample is None or sample.key != key:
                if sample is not None:
                    yield sample
                sample = _Sample(key)
            if sample.image is not None if suffix in IMAGES else suffix in sample.texts:
                problems.report(f"{name}, member '{member}'", "its sample has two members of one kind")
            elif suffix in IMAGES:
                sample.image = (member, data)
            else:
                sample.texts[suffix] = data
    except (tarfile.TarError, OSError, EOFError) as error:
        if whole:
            problems.report(name, f"the shard is damaged ({error})")
        return
    if sample is not None and whole:
        yield sample


def _is_whole(shard: Path) -> bool:
    """Return whether a shard ends as each tar file does; without, one that was cut between two members looks intact."""
    with shard.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * tarfile.BLOCKSIZE))
        return file.read() == bytes(2 * tarfile.BLOCKSIZE)


def _members(shard: Path, name: str, problems: Problems) -> Iterator[tuple[str, bytes]]:
    """Yield the members that samples are made of, with their bytes."""
    with tarfile.open(shard, "r:") as archive:
        for member in headers(archive, shard.stat().st_size):
            suffix = _split_name(member.name)[2]
            if suffix not in IMAGES | TEXTS:
                continue
            row = f"{name}, member '{member.name}'"
            if not is_plain(member):
                problems.report(row, "it is no plain file inside of the archive")
            elif member.size > (MAX_IMAGE if suffix in IMAGES else MAX_TEXT):
                problems.report(row, f"it is too large ({member.size:,} bytes)")
            else:
                file = archive.extractfile(member)
                assert file is not None, "it is a plain file"
                data = file.read()
                if len(data) < member.size:
                    raise EOFError("it ends early")
                yield member.name, data


def headers(archive: tarfile.TarFile, size: int) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an open tar file of so many bytes; only headers are read, and none is remembered.

    Raises:
        TarError: a header is damaged, the file ends early, or there are more members than a shard has.
    """
    passed = 0
    # past the end there is nothing to look for: a member may claim to end anywhere; the first was read at opening
    while (passed == 0 or archive.offset < size) and (member := archive.next()) is not None:
        passed += 1
        if passed > MAX_MEMBERS:
            raise tarfile.ReadError(f"it has more than {MAX_MEMBERS:,} members")
        archive.members.clear()  # type: ignore[attr-defined]  # else it remembers each one that it has passed
        yield member
    if archive.offset >= size:
        raise tarfile.ReadError("it ends early")
    assert archive.fileobj is not None, "it is open"
    archive.fileobj.seek(archive.offset)
    # tarfile takes a header that it cannot read for the end
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no header at byte {archive.offset:,}")


def is_plain(member: tarfile.TarInfo) -> bool:
    """Return whether a member is a file inside of its archive: no link, no device, no hole, no path out of it."""
    parts = member.name.split("/")
    return member.isreg() and not member.issparse() and bool(parts[0]) and ".." not in parts


def _split_name(name: str) -> tuple[str, str, str]:
    """Return the key, the dot and the suffix of a member: the key ends at the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    return f"{folder}{slash}{stem}", dot, suffix.lower()


def _item(sample: _Sample, shard: Path, row: str, split: str, problems: Problems) -> RawItem | None:
    if sample.image is None:
        problems.report(row, "it has no image")
        return None
    facts = _facts(sample.texts.get("json"), row, problems)
    texts = clean_texts(_captions(sample, facts), row, problems)
    if not texts:
        problems.report(row, "it has no caption")
        return None
    name, data = sample.image
    return RawItem(
        split=split,
        id=sample.key,
        row=row,
        images=(RawImage(sample.key, shard / name, data),),
        texts=texts,
        fields={key: str(value) for key, value in facts.items() if isinstance(value, str | int | float)},
    )


def _facts(data: bytes | None, row: str, problems: Problems) -> dict[str, Any]:
    if data is None:
        return {}
    try:
        facts = json.loads(data.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        facts = None
    if isinstance(facts, dict):
        return facts
    problems.report(row, "its .json holds no JSON object")
    return {}


def _captions(sample: _Sample, facts: dict[str, Any]) -> list[object]:
    """Return the captions of a sample, and take them out of its facts."""
    told = facts.pop("caption", None), facts.pop("captions", None)
    for suffix in ("txt", "caption"):
        if suffix in sample.texts:
            return [sample.texts[suffix].decode("utf-8", "surrogateescape")]
    values: object = next((value for value in told if value is not None), [])
    return list(values) if isinstance(values, list) else [values]
