"""Prepared data: sharded Parquet that Hugging Face `datasets` opens, with a manifest. Written whole or not at all.

```
manifest.json                        what it was made of, and what is in it
images-00000-of-00002.parquet        id, image {bytes, path}: the bytes as they were published
<split>-00000-of-00001.parquet       id, images (ids), texts, label, answers, boxes, target, fields
```
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from renaissance.api import Box, Item
from renaissance.errors import DataError, OutputError, SampleError

FORMAT = 1
MANIFEST = "manifest.json"
IMAGES = "images"
SHARD_BYTES = 256 * 2**20
GROUP_BYTES = 2**20  # one random image costs the reading of one row group
GROUP_ITEMS = 10_000

IMAGE_SCHEMA = pa.schema(
    [("id", pa.string()), ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))],
    metadata={
        "huggingface": json.dumps(
            {"info": {"features": {"id": {"dtype": "string", "_type": "Value"}, "image": {"_type": "Image"}}}}
        )
    },
)
ITEM_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("images", pa.list_(pa.string())),
        ("texts", pa.list_(pa.string())),
        ("label", pa.string()),
        ("answers", pa.list_(pa.string())),
        ("boxes", pa.list_(pa.list_(pa.float64()))),
        ("target", pa.int64()),
        ("fields", pa.list_(pa.struct([("name", pa.string()), ("value", pa.string())]))),
    ]
)


@dataclass(frozen=True, slots=True)
class ParquetImage:
    """The encoded image in one row of an image shard; group: None where the shards are gone.

    file: the whole path of the shard, as a relative one is another file after a change of folder.
    """

    file: str
    group: int | None
    row: int
    name: str

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            SampleError: the shard is gone or damaged.
        """
        if self.group is None:
            raise SampleError(f"The image '{self.name}' cannot be read: '{self.file}' is gone. Prepare the data again.")
        try:
            cell = _row_group(self.file, self.group)[self.row].as_py()
        except (OSError, pa.ArrowException, LookupError) as error:
            raise SampleError(f"The image '{self.name}' cannot be read ({error}). Prepare the data again.") from None
        data = cell["bytes"] if cell else None
        if not isinstance(data, bytes):
            raise SampleError(f"The image '{self.name}' has no bytes in '{self.file}'. Prepare the data again.")
        return data


@lru_cache(maxsize=8)
def _row_group(file: str, group: int) -> Any:
    return _opened(file).read_row_group(group, columns=["image"]).column("image")


@lru_cache(maxsize=64)
def _opened(file: str) -> pq.ParquetFile:
    return pq.ParquetFile(file, memory_map=True, page_checksum_verification=True)


# --- writing ----------------------------------------------------------------------------------------------------------


class Writer:
    """Writes prepared data in constant memory, beside `out`, and puts it there when all is written.

    Used as a context manager: an error inside leaves nothing behind.

    Raises:
        OutputError: `out` exists, or cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self._unfinished = out.with_name(f".{out.name}.unfinished")
        self._tables: dict[str, _Table] = {}

    def __enter__(self) -> Self:
        if self.out.exists():
            raise OutputError(f"'{self.out}' exists already. Choose another folder, or remove it.")
        try:
            shutil.rmtree(self._unfinished, ignore_errors=True)
            self._unfinished.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"'{self.out}' cannot be written ({error.strerror or error}).") from None
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for table in self._tables.values():
            table.abandon()
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def image(self, image_id: str, data: bytes, name: str) -> None:
        """Add an image under an id that no other one has."""
        table = self._table(IMAGES, IMAGE_SCHEMA)
        table.add({"id": image_id, "image": {"bytes": data, "path": name}}, len(data))

    def item(
        self,
        split: str,
        item_id: str,
        *,
        images: Sequence[str],
        texts: Sequence[str],
        label: str | None = None,
        answers: Sequence[str] = (),
        boxes: Sequence[Box] = (),
        target: int | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        """Add an item to a split; `images` are ids."""
        assert split != IMAGES, "the images have this name"
        row = {
            "id": item_id,
            "images": list(images),
            "texts": list(texts),
            "label": label,
            "answers": list(answers),
            "boxes": [list(box) for box in boxes],
            "target": target,
            "fields": [{"name": name, "value": value} for name, value in sorted((fields or {}).items())],
        }
        self._table(split, ITEM_SCHEMA).add(row, sum(map(len, texts)) + 64)

    def finish(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write the manifest and put the folder in its place; return the manifest: `facts`, and what is in each split.

        Raises:
            OutputError: it cannot be written.
        """
        tables = {name: table.finish() for name, table in self._tables.items()}
        manifest = {
            "format": FORMAT,
            **facts,
            "images": {"count": 0, "files": [], **tables.pop(IMAGES, {})},
            "splits": dict(sorted(tables.items())),
        }
        try:
            text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
            (self._unfinished / MANIFEST).write_text(text, encoding="utf-8")
            self._unfinished.rename(self.out)
        except OSError as error:
            raise OutputError(f"'{self.out}' cannot be written ({error.strerror or error}).") from None
        return manifest

    def _table(self, name: str, schema: pa.Schema) -> _Table:
        if name not in self._tables:
            self._tables[name] = _Table(self._unfinished, name, schema)
        return self._tables[name]


class _Table:
    """The shards of one table: rows are written in groups, of about a megabyte of images or 10,000 items."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema) -> None:
        self._folder, self._name, self._schema = folder, name, schema
        self._rows: list[dict[str, Any]] = []
        self._held = self._in_shard = self._count = self._shards = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Any], size: int) -> None:
        self._rows.append(row)
        self._held += size
        self._count += 1
        if self._held >= GROUP_BYTES or len(self._rows) >= GROUP_ITEMS:
            self._flush()

    def finish(self) -> dict[str, Any]:
        """Close the last shard and name all of them; return count and file names."""
        self._flush()
        self.abandon()
        names = [f"{self._name}-{i:05d}-of-{self._shards:05d}.parquet" for i in range(self._shards)]
        for index, name in enumerate(names):
            self._path(index).rename(self._folder / name)
        return {"count": self._count, "files": names}

    def abandon(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            # compressed images do not become smaller, and are read at random
            compression = "none" if self._schema is IMAGE_SCHEMA else "zstd"
            self._writer = pq.ParquetWriter(
                self._path(self._shards), self._schema, compression=compression, write_page_checksum=True
            )
            self._shards += 1
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema), row_group_size=len(self._rows))
        self._in_shard += self._held
        self._rows, self._held = [], 0
        if self._in_shard >= SHARD_BYTES:
            self.abandon()
            self._in_shard = 0

    def _path(self, shard: int) -> Path:
        return self._folder / f".{self._name}-{shard:05d}.parquet"


# --- reading ----------------------------------------------------------------------------------------------------------


def is_prepared(folder: Path) -> bool:
    """Return whether a folder holds prepared data."""
    return (folder / MANIFEST).is_file() and '"layout"' in (folder / MANIFEST).read_text(encoding="utf-8")


def manifest_of(folder: Path) -> dict[str, Any]:
    """Return the manifest of prepared data; no shard is looked at.

    Raises:
        DataError: the folder holds none, or was prepared by another version.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        whole = manifest["format"] == FORMAT and {"layout", "splits", "images"} <= set(manifest)
    except (OSError, ValueError, LookupError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"'{folder}' holds no prepared data ({MANIFEST}: {why}). Try: renaissance data prepare."
        ) from None
    if not whole:
        raise DataError(f"'{folder}' was prepared by another version. Prepare the data again.")
    return dict(manifest)


def world_of(folder: Path) -> str | None:
    """Return which generated world prepared data are of; None: of none, or it is not known."""
    try:
        return _world(folder, (folder / MANIFEST).stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=64)  # it is asked for each image
def _world(folder: Path, changed: int) -> str | None:
    world = manifest_of(folder).get("world")
    return world if isinstance(world, str) else None


class Prepared:
    """Prepared data: its manifest, and the items of its splits.

    files_gone: image shards may be gone, as what is stored of their images may be all that is needed.

    Raises:
        DataError: the folder holds none, or a shard is missing, truncated or not the one that was written.
    """

    def __init__(self, folder: Path, *, files_gone: bool = False) -> None:
        self.folder = folder
        self.manifest = manifest_of(folder)
        files = [folder / name for name in self.manifest[IMAGES]["files"]]
        self._gone = next((os.path.abspath(file) for file in files if not file.exists()), None) if files_gone else None
        for name, table in (*self.manifest["splits"].items(), (IMAGES, self.manifest[IMAGES])):
            if name != IMAGES or self._gone is None:
                _check_shards(folder, name, table)
        self._places: dict[str, ParquetImage] | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self.manifest["splits"])

    def items(self, split: str) -> Iterator[Item]:
        """Yield the items of a split, in their order.

        Raises:
            DataError: there is no such split, or a shard is damaged.
        """
        if split not in self.manifest["splits"]:
            raise DataError(f"'{self.folder}' has no split '{split}'; it has: {', '.join(self.splits)}.")
        number = 0
        for name in self.manifest["splits"][split]["files"]:
            for batch in _batches(self.folder / name):
                for row in batch.to_pylist():
                    yield self._item(row, f"{self.folder.name}/{split}, item {number}")
                    number += 1

    def _item(self, row: Mapping[str, Any], where: str) -> Item:
        return Item(
            id=row["id"],
            images=tuple(self._image(image, where) for image in row["images"]),
            texts=tuple(row["texts"]),
            row=where,
            label=row["label"],
            answers=tuple(row["answers"]),
            boxes=tuple(_box(box) for box in row["boxes"]),
            target=row["target"],
            fields={field["name"]: field["value"] for field in row["fields"]},
        )

    def _image(self, image_id: str, where: str) -> ParquetImage:
        if self._places is None:
            self._places = dict(self._index())
        place = self._places.get(image_id)
        if place is None and self._gone is not None:
            return ParquetImage(self._gone, None, 0, f"{self.folder.name}/{image_id}")
        if place is None:
            raise DataError(f"{where}: there is no image '{image_id}' in '{self.folder}'. Prepare the data again.")
        return place

    def _index(self) -> Iterator[tuple[str, ParquetImage]]:
        for name in self.manifest["images"]["files"]:
            file = self.folder / name
            if self._gone is not None and not file.exists():
                continue
            opened, whole = _file(file), os.path.abspath(file)
            for group in range(opened.num_row_groups):
                ids = opened.read_row_group(group, columns=["id"]).column("id").to_pylist()
                for row, image_id in enumerate(ids):
                    yield image_id, ParquetImage(whole, group, row, f"{self.folder.name}/{image_id}")


def _check_shards(folder: Path, name: str, table: Mapping[str, Any]) -> None:
    """Refuse shards that are not there, end early, or have not the rows that the manifest says; only ends are read.

    Raises:
        DataError: naming the shard, or the table.
    """
    rows = 0
    for file in table["files"]:
        with _file(folder / file) as opened:
            rows += opened.metadata.num_rows
    if rows != table["count"]:
        raise DataError(
            f"The shards of '{name}' in '{folder}' have {rows:,} rows, and {table['count']:,} were written. "
            "Prepare the data again."
        )


def _box(values: Sequence[float]) -> Box:
    x, y, width, height = values
    return x, y, width, height


def _batches(file: Path) -> Iterator[Any]:
    try:
        yield from _file(file).iter_batches(batch_size=GROUP_ITEMS)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"'{file}' is damaged ({error}). Prepare the data again.") from None


def _file(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, memory_map=True, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"'{file}' cannot be read ({error}). Prepare the data again.") from None
