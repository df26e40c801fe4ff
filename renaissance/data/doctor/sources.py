"""What the doctor examines: prepared data, or a folder of images with captions, as raw rows.

Rows are read without the readers' own checks, since a missing image or a damaged row is what is looked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from renaissance.api import Item
from renaissance.data.prepared import MANIFEST, ParquetImage, is_prepared
from renaissance.data.readers.tabular import read_images
from renaissance.data.records import ImageSource, Record
from renaissance.errors import DataError
from renaissance.recipe.data import Columns

TRAINED = ("train", "restval")  # how the names of splits begin that models are trained on
ROWS = 1000


class Source(Protocol):
    """Data to examine."""

    @property
    def name(self) -> str:
        """What stands for the data in the report."""
        ...

    @property
    def layout(self) -> str:
        """What was prepared."""
        ...

    @property
    def trained(self) -> tuple[str, ...]:
        """The splits that models are trained on."""
        ...

    @property
    def tested(self) -> tuple[str, ...]:
        """The splits that models are evaluated on."""
        ...

    @property
    def place(self) -> Path:
        """Where the data are."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits."""
        ...

    @property
    def count(self) -> int:
        """How many images there should be."""
        ...

    def images(self) -> Iterator[tuple[str, ImageSource]]:
        """Yield the id of each image, and where its bytes are, in their order."""
        ...

    def items(self, split: str) -> Iterator[tuple[tuple[str, ...], Item]]:
        """Yield each item of a split without its images, and their ids."""
        ...

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with the data as a whole: kind and what was found."""
        ...


def open_source(given: str | Path, *, cache: Path, tested: bool = False) -> Source:
    """Open "FOLDER", or "FOLDER:split,split" to choose splits: those trained on or, with `tested`, tested on.

    Without a choice, splits whose name begins with "train" or "restval" are trained on, and the others tested on. What
    is given to be tested on is never trained on; of it, if all splits are for training, all are tested on.

    Raises:
        DataError: there are no data, or no such split.
    """
    path, chosen = _parts(str(given))
    source = _opened(path, cache)
    unknown = [name for name in chosen if name not in source.splits]
    if unknown:
        raise DataError(f"'{path}' has no split '{unknown[0]}'; it has: {', '.join(source.splits)}.")
    held_out = tuple(name for name in source.splits if not name.startswith(TRAINED) and name not in chosen)
    if tested:
        return replace(source, trained=(), tested=chosen or held_out or source.splits)
    trained = chosen or tuple(name for name in source.splits if name.startswith(TRAINED))
    return replace(source, trained=trained, tested=held_out)


def _parts(given: str) -> tuple[Path, tuple[str, ...]]:
    folder, colon, names = given.rpartition(":")
    if not colon or Path(given).expanduser().exists():
        return Path(given).expanduser(), ()
    return Path(folder).expanduser(), tuple(name.strip() for name in names.split(",") if name.strip())


def _opened(path: Path, cache: Path) -> PreparedSource | FolderSource:
    place = path.resolve()
    if is_prepared(path):
        manifest = _manifest(path)
        return PreparedSource(place.name, str(manifest["layout"]), place, manifest)
    read = read_images(path, Columns(), cache=cache, on_bad_sample="skip")
    return FolderSource(place.name, "image-folder", place, tuple(read.records), tuple(read.skipped))


@dataclass(frozen=True, slots=True)
class PreparedSource:
    """Prepared data, read shard by shard."""

    name: str
    layout: str
    place: Path
    manifest: Mapping[str, Any]
    trained: tuple[str, ...] = ()
    tested: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the manifest."""
        return tuple(self.manifest["splits"])

    @property
    def count(self) -> int:
        """The images of the manifest."""
        return int(self.manifest["images"]["count"])

    def images(self) -> Iterator[tuple[str, ImageSource]]:
        """Yield ids and images, shard by shard."""
        for file in self._files("images"):
            for group in range(_opened_file(file).num_row_groups):
                ids = _opened_file(file).read_row_group(group, columns=["id"]).column("id").to_pylist()
                for row, image_id in enumerate(ids):
                    yield image_id, ParquetImage(str(file), group, row, f"{self.name}/{image_id}")

    def items(self, split: str) -> Iterator[tuple[tuple[str, ...], Item]]:
        """Yield the items of a split, and the ids of their images."""
        for file in self._files(split):
            for batch in _opened_file(file).iter_batches(batch_size=ROWS):
                for row in batch.to_pylist():
                    yield tuple(row["images"] or ()), _item(row)

    def faults(self) -> Iterator[tuple[str, str]]:
        """Compare the rows of the shards with the counts of the manifest."""
        manifest = self.manifest
        for table, facts in (("images", manifest["images"]), *manifest["splits"].items()):
            found = sum(_opened_file(file).metadata.num_rows for file in self._files(table))
            if found != facts["count"]:
                yield "manifest does not fit", f"{table}: {found:,} rows, and the manifest says {facts['count']:,}"

    def _files(self, table: str) -> list[Path]:
        facts = self.manifest["images"] if table == "images" else self.manifest["splits"][table]
        return [self.place / name for name in facts["files"]]


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Images with captions; a column called `split` names the splits, and without it all is the split "all"."""

    name: str
    layout: str
    place: Path
    records: tuple[Record, ...] = field(repr=False)
    skipped: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    tested: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        """The values of the column."""
        return tuple(sorted({_split(record) for record in self.records}))

    @property
    def count(self) -> int:
        """The images, each counted once."""
        return len({record.image.name for record in self.records})

    def images(self) -> Iterator[tuple[str, ImageSource]]:
        """Yield each image once, by its name."""
        yield from {record.image.name: record.image for record in self.records}.items()

    def items(self, split: str) -> Iterator[tuple[tuple[str, ...], Item]]:
        """Yield the records of a split."""
        for record in self.records:
            if _split(record) == split:
                yield (record.image.name,), Item(record.id, (), record.captions, record.row, fields=record.fields)

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield the rows that cannot be used."""
        for line in self.skipped:
            yield "row that cannot be used", line


def _split(record: Record) -> str:
    return record.fields.get("split") or "all"


def _item(row: dict[str, Any]) -> Item:
    return Item(
        id=row["id"],
        images=(),
        texts=tuple(row["texts"] or ()),
        row=row["id"],
        label=row["label"],
        answers=tuple(row["answers"] or ()),
        boxes=tuple(tuple(box) for box in row["boxes"] or ()),
        target=row["target"],
        fields={field["name"]: field["value"] for field in row["fields"] or ()},
    )


def _manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest as it is; `Prepared` would refuse shards that do not fit it, and here they are told of."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if {"layout", "splits", "images"} <= set(manifest):
            return dict(manifest)
    except (OSError, ValueError, TypeError):
        pass
    raise DataError(f"The manifest of '{folder}' is damaged. Prepare the data again.")


def _opened_file(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"'{file}' cannot be read ({error}). Prepare the data again.") from None
