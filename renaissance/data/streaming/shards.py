"""What every shard has in common, and how a row of one becomes a record. A row that cannot be used keeps its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from renaissance.data.captions import clean_caption, normalise
from renaissance.data.readers.columns import Roles, find_roles, texts_of
from renaissance.data.readers.sources import ArrowImage, FileImage
from renaissance.data.readers.tables import Row, Table
from renaissance.data.records import ImageSource, Record
from renaissance.errors import DataError, SampleError
from renaissance.recipe.data import Columns


class Shard(Protocol):
    """A file of `count` samples. mark: changes with the content: name, count and size, or the commit it is of."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def count(self) -> int:
        """Its samples."""
        ...

    @property
    def mark(self) -> str:
        """What it is known by when a training goes on."""
        ...

    def read(self, start: int, stop: int) -> list[Record]:
        """Return the samples from `start` up to `stop`, in order.

        Raises:
            DataError: the shard is damaged, or lacks a column.
            HubError: it cannot be fetched.
        """
        ...


@dataclass(frozen=True, slots=True)
class BytesImage:
    """An encoded image that was read with its row."""

    name: str
    data: bytes

    def read(self) -> bytes:
        """Return the encoded image."""
        return self.data


@dataclass(frozen=True, slots=True)
class NoImage:
    """Stands in the place of a sample that cannot be used, so that it is met as one whose image cannot be read is."""

    name: str
    fault: str

    def read(self) -> bytes:
        """Raise what is wrong with the sample.

        Raises:
            SampleError: always.
        """
        raise SampleError(f"{self.name}: {self.fault}.")


def bad_record(row: str, fault: str) -> Record:
    """Return what stands in the place of a row that cannot be used."""
    return Record(row, NoImage(row, fault), (), row)


def record_of(row: str, sample_id: str, image: ImageSource, texts: Iterable[object]) -> Record:
    """Return the record of an image with these captions, each once; a bad one where a caption cannot be used."""
    captions: dict[str, str] = {}
    try:
        for text in texts:
            caption = clean_caption(text)
            captions.setdefault(normalise(caption), caption)
    except ValueError as error:
        return bad_record(row, str(error))
    if not captions:
        return bad_record(row, "it has no caption")
    return Record(sample_id, image, tuple(captions.values()), row)


# --- rows of tables ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Which columns of a table hold what; paths of images are below `folder`, and None of a table on the Hub."""

    image: str
    captions: tuple[str, ...]
    id: str | None
    folder: Path | None

    @property
    def names(self) -> list[str]:
        """The columns that are read."""
        return list(dict.fromkeys([self.image, *self.captions, *([self.id] if self.id else [])]))

    def record(self, row: str, cells: Mapping[str, object], address: str) -> Record:
        """Return the record of a row. address: names the row among those of all data, and so its image."""
        image = self._image(address, cells[self.image])
        if isinstance(image, str):
            return bad_record(row, image)
        texts = [text for column in self.captions for text in texts_of(cells[column])]
        if len(texts) > 1:
            # a shorter list in a table of several caption columns leaves the rest of them null
            texts = [text for text in texts if text is not None]
        named = cells[self.id] if self.id is not None else None
        return record_of(row, row if named is None else str(named), image, texts)

    def _image(self, address: str, cell: object) -> ImageSource | str:
        """Return where the image in a cell is, or what is wrong with it."""
        if isinstance(cell, ArrowImage):
            return cell
        if isinstance(cell, Mapping):
            cell = cell["path"] if cell.get("bytes") is None else cell["bytes"]
        if isinstance(cell, bytes):
            return BytesImage(address, cell)
        if not isinstance(cell, str) or not cell or "\0" in cell:
            return "the image is missing"
        if self.folder is None:
            return f"the image is the path {cell!r}, and a stream of the Hub needs images inside of its shards"
        return FileImage(str(self.folder / cell))


def find_columns(
    name: str, columns: Sequence[str], rows: Sequence[Row], given: Columns, folder: Path | None
) -> tuple[TableColumns, tuple[str, ...]]:
    """Return what the columns hold, as given or else guessed from the first rows, and what was guessed.

    Raises:
        DataError: a column that was given is not there, or one cannot be guessed.
    """
    sample = [{key: _encoded(cell, name) for key, cell in row.items()} for row in rows]
    table = Table(name, folder or Path("/nonexistent"), tuple(columns), lambda: iter(sample))
    roles: Roles = find_roles(table, given)
    # of a stream, a sample without an id is named by its row
    facts = tuple(fact for fact in roles.facts if not fact.endswith("the image's path is the id"))
    return TableColumns(roles.image, roles.captions, roles.id, folder and roles.folder), facts


def _encoded(cell: object, name: str) -> object:
    """Return what stands for an encoded image where columns are guessed."""
    inside = cell.get("bytes") if isinstance(cell, Mapping) else cell
    return ArrowImage("", "", 0, 0, name) if isinstance(inside, bytes) else cell


def missing_column(name: str, wanted: Iterable[str], there: Iterable[str]) -> DataError | None:
    """Return the error of a shard that lacks a column of the first one; None where it has them all."""
    lacking = sorted(set(wanted) - set(there))
    if not lacking:
        return None
    return DataError(f"{name} has no column '{lacking[0]}', which the first shard has. Mend it, or leave it out.")
