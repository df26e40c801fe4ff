"""From rows to records: rows of one image become one record; a row that cannot be used is an error, or is skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from renaissance.data.captions import clean_caption, normalise
from renaissance.data.readers.columns import Roles, find_roles, texts_of
from renaissance.data.readers.sources import ArrowImage, FileImage
from renaissance.data.readers.tables import BadRow, Row, Table
from renaissance.data.records import ImageSource, Record
from renaissance.errors import DataError, SampleError
from renaissance.recipe.data import Columns
from renaissance.recipe.values import OnBadSample


@dataclass(frozen=True, slots=True)
class ReadRecords:
    """Records in the order of their first rows, with what was guessed, and a line for each row left out."""

    records: tuple[Record, ...]
    facts: tuple[str, ...]
    skipped: tuple[str, ...]


def read_records(
    table: Table, columns: Columns, on_bad_sample: OnBadSample, *, files_gone: bool = False
) -> ReadRecords:
    """Return the records of a table. files_gone: image files need not be there.

    Raises:
        DataError: a column is missing or cannot be guessed; nothing can be used; rows of one image contradict.
        SampleError: a row cannot be used, and `on_bad_sample` is "error"; the message names the row.
    """
    roles = find_roles(table, columns)
    reading = _Reading(table, roles, on_bad_sample, files_gone)
    for number, row in enumerate(table.rows(), start=1):
        reading.add(row, f"{table.name}, row {number}")
    return reading.result()


@dataclass(slots=True)
class _Drawn:
    """What is known of one image so far."""

    row: str
    image: ImageSource
    id: str
    captions: dict[str, str]
    fields: dict[str, str]


@dataclass(slots=True)
class _Reading:
    """The state of a reading: images by key, and what was found wrong."""

    table: Table
    roles: Roles
    on_bad_sample: OnBadSample
    files_gone: bool
    images: dict[str, _Drawn] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    conflicts: dict[str, str] = field(default_factory=dict)

    def add(self, row: Row | BadRow, name: str) -> None:
        """Take in one row; `name` says which it is."""
        try:
            if isinstance(row, BadRow):
                raise ValueError(row.reason)
            image = _image(row.get(self.roles.image), self.roles.folder, files_gone=self.files_gone)
        except ValueError as error:
            self._bad(name, str(error))
            return
        captions: dict[str, str] = {}
        for text in self._captions(row, name):
            captions.setdefault(normalise(text), text)
        if captions:
            self._merge(_Drawn(name, image, self._id(row, image), captions, self._fields(row)))

    def _captions(self, row: Row, name: str) -> Iterator[str]:
        """Yield the captions of a row that can be used."""
        cells = [text for column in self.roles.captions for text in texts_of(row.get(column))]
        if len(cells) > 1:
            # a shorter list in a table of several caption columns leaves the rest of them null
            cells = [cell for cell in cells if cell is not None]
        if not cells:
            self._bad(name, "the caption is missing")
        for cell in cells:
            try:
                yield clean_caption(cell)
            except ValueError as error:
                self._bad(name, str(error))

    def _bad(self, name: str, reason: str) -> None:
        if self.on_bad_sample == "error":
            raise SampleError(f"{name}: {reason}. Repair or remove it, or skip such samples with --on-bad-sample skip.")
        self.skipped.append(f"{name}: {reason}")

    def _id(self, row: Row, image: ImageSource) -> str:
        value = _scalar(row.get(self.roles.id)) if self.roles.id else None
        return self._own_name(image) if value is None else value

    def _own_name(self, image: ImageSource) -> str:
        """Return the path of an image below the folder, or the row of an encoded image."""
        return os.path.relpath(image.path, self.roles.folder) if isinstance(image, FileImage) else image.name

    def _fields(self, row: Row) -> dict[str, str]:
        taken = {self.roles.image, self.roles.id, *self.roles.captions}
        scalars = {name: _scalar(cell) for name, cell in row.items() if name not in taken}
        return {name: value for name, value in scalars.items() if value is not None}

    def _merge(self, new: _Drawn) -> None:
        """Add an image, or the captions of a further row of it."""
        old = self.images.setdefault(self._key(new), new)
        if old is new:
            return
        if old.id != new.id:
            self.conflicts.setdefault("id", f"{new.row}: the id is '{new.id}', in {old.row} of this image '{old.id}'")
        for text, caption in new.captions.items():
            old.captions.setdefault(text, caption)
        for name in sorted(old.fields.keys() | new.fields.keys()):
            if old.fields.get(name) != new.fields.get(name):
                self.conflicts.setdefault(
                    f"field {name}", f"rows of one image differ in '{name}' ({new.row}); the first row counts"
                )

    def _key(self, new: _Drawn) -> str:
        """Return what tells images apart: the path; of encoded images the id, if their bytes agree as well."""
        if isinstance(new.image, FileImage):
            return new.image.path
        if self.roles.id is None:
            return new.row
        key = new.id
        while key in self.images and self.images[key].image.read() != new.image.read():
            key += "\0"
        return key

    def result(self) -> ReadRecords:
        """Return the records."""
        if not self.images:
            reason = f"; the first fault: {self.skipped[0]}" if self.skipped else ""
            raise DataError(f"{self.table.name}: no image with a caption is left{reason}.")
        by_path = "id" in self.conflicts
        if by_path and not self.roles.guessed_id:
            raise DataError(f"{self.conflicts['id']}. Name another column of ids, or none.")
        records = tuple(
            Record(
                self._own_name(drawn.image) if by_path else drawn.id,
                drawn.image,
                tuple(drawn.captions.values()),
                drawn.row,
                drawn.fields,
            )
            for drawn in self.images.values()
        )
        facts = self.roles.facts + tuple(line for name, line in self.conflicts.items() if name != "id")
        if by_path:
            facts += (f"'{self.roles.id}' is no id of the image ({self.conflicts['id']}): the image's path is the id",)
        return ReadRecords(records, facts, tuple(self.skipped))


def _image(cell: object, folder: Path, *, files_gone: bool) -> ImageSource:
    """Return where the image in a cell is.

    Raises:
        ValueError: the cell holds none, or the path of a file that is not there, though it should be.
    """
    if isinstance(cell, ArrowImage):
        return cell
    if cell is None or cell == "":
        raise ValueError("the image is missing")
    if not isinstance(cell, str) or "\0" in cell:
        raise ValueError("the cell of the image holds neither a path nor an encoded image")
    path = os.path.normpath(os.path.join(folder, cell))
    if not files_gone and not os.path.isfile(path):
        raise ValueError(f"there is no image file {path!r}")
    return FileImage(path)


def _scalar(cell: object) -> str | None:
    """Return a text, number or truth value as text; None for anything else."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return str(cell) if isinstance(cell, (str, int, float)) and cell == cell else None
