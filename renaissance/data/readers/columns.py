"""Which column holds what: as the recipe says, else guessed by name, else by content. Every guess is told.

A column is compared by its name in lower case, without '_', '-' and spaces.

images: image, imagepath, imagefile, filename, filepath, file, path, img, imgpath, picture, photo, jpg, png.
captions: caption, captions, text, texts, sentence, sentences, description, title, alttext, alt, raw; then a group of
columns such as caption_0, caption_1. ids: id, imageid, imgid, sampleid, uid. The first of these names that is there and
whose column holds such values counts.

By content: the image is in the only column whose values are files that exist; the caption is in the only other column
that holds text of several words. An id is never guessed by content.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from renaissance.data.readers.sources import ArrowImage
from renaissance.data.readers.tables import Row, Table
from renaissance.errors import DataError
from renaissance.recipe.data import Columns

IMAGE_NAMES = (
    "image imagepath imagefile filename filepath file path img imgpath picture photo jpg png".split()  # noqa: SIM905
)
CAPTION_NAMES = "caption captions text texts sentence sentences description title alttext alt raw".split()  # noqa: SIM905
ID_NAMES = "id imageid imgid sampleid uid".split()  # noqa: SIM905
MAX_FOLDERS = 50


@dataclass(frozen=True, slots=True)
class Roles:
    """Which columns hold what, and the folder that paths of images are below.

    guessed_id: the id was not named in the recipe. facts: the guesses, to be shown.
    """

    image: str
    captions: tuple[str, ...]
    id: str | None
    guessed_id: bool
    folder: Path
    facts: tuple[str, ...]


def find_roles(table: Table, given: Columns) -> Roles:
    """Return what each column holds: as given, else guessed.

    Raises:
        DataError: a column that was given is not there, or one cannot be guessed.
    """
    named = (given.caption,) if isinstance(given.caption, str) else given.caption or ()
    for name in (given.image, given.id, *named):
        if name is not None and name not in table.columns:
            raise DataError(f"{table.name} has no column '{name}'. It has: {_listed(table.columns)}.")
    if not table.columns:
        raise DataError(f"{table.name} holds no row that can be read. Write one with an image and a caption.")
    rows = table.sample()
    image = given.image or _guess_image(table, rows)
    captions = named or _guess_captions(table, rows, {image, given.id})
    id_ = given.id or _by_name(table, ID_NAMES, lambda name: name != image and name not in captions)
    folder = _image_folder(table, [row.get(image) for row in rows])
    facts = _guesses(table.name, given, image, captions, id_)
    if folder != table.folder:
        facts += (f"images are in the folder '{folder.name}'",)
    return Roles(image, tuple(captions), id_, given.id is None, folder, facts)


def texts_of(cell: object) -> list[object]:
    """Return the captions in a cell: its text, the texts of its list, or of a list written as JSON."""
    if isinstance(cell, str) and cell.lstrip().startswith('["'):
        try:
            return list(json.loads(cell))
        except (ValueError, RecursionError):
            return [cell]
    return list(cell) if isinstance(cell, (list, tuple)) else [cell]


def _guesses(table: str, given: Columns, image: str, captions: Sequence[str], id_: str | None) -> tuple[str, ...]:
    lines = []
    if given.image is None:
        lines.append(f"{table}: column of images: '{image}' (guessed)")
    if given.caption is None:
        lines.append(f"{table}: column of captions: {_listed(captions)} (guessed)")
    if given.id is None:
        lines.append(f"{table}: column of ids: '{id_}' (guessed)" if id_ else f"{table}: the image's path is the id")
    return tuple(lines)


def _guess_image(table: Table, rows: Sequence[Row]) -> str:
    def exists(name: str) -> bool:
        return any(_is_image(table.folder, row.get(name)) for row in rows)

    def is_path(name: str) -> bool:
        return not rows or any(isinstance(row.get(name), str) for row in rows)

    found = _by_name(table, IMAGE_NAMES, exists) or _by_name(table, IMAGE_NAMES, is_path)
    candidates = [found] if found else [name for name in table.columns if exists(name)]
    if len(candidates) == 1:
        return candidates[0]
    raise _unclear(table, "images", "image", candidates)


def _guess_captions(table: Table, rows: Sequence[Row], taken: set[str | None]) -> tuple[str, ...]:
    def is_text(name: str) -> bool:
        texts = (text for row in rows for text in texts_of(row.get(name)))
        return name not in taken and (not rows or any(isinstance(text, str) for text in texts))

    found = _by_name(table, CAPTION_NAMES, is_text)
    if found:
        return (found,)
    for usual in CAPTION_NAMES:
        group = tuple(name for name in table.columns if re.fullmatch(rf"{usual}\d+", _plain(name)) and is_text(name))
        if group:
            return group
    candidates = [name for name in table.columns if is_text(name) and _has_sentences(rows, name)]
    if len(candidates) == 1:
        return (candidates[0],)
    raise _unclear(table, "captions", "caption", candidates)


def _has_sentences(rows: Sequence[Row], name: str) -> bool:
    texts = [text for row in rows for text in texts_of(row.get(name)) if isinstance(text, str)]
    return sum(len(text.split()) > 1 for text in texts) * 2 > len(texts)


def _by_name(table: Table, usual: Sequence[str], suits: Callable[[str], bool]) -> str | None:
    """Return the first column, in the order of the usual names, that has one of them and suits."""
    for wanted in usual:
        for name in table.columns:
            if _plain(name) == wanted and suits(name):
                return name
    return None


def _plain(name: str) -> str:
    return re.sub(r"[_\-\s]", "", name).lower()


def _image_folder(table: Table, cells: Sequence[object]) -> Path:
    """Return the folder that the paths are below: that of the table, else the one folder in it that has such files."""
    paths = [cell for cell in cells if isinstance(cell, str)]
    if not paths or any(_is_image(table.folder, path) for path in paths):
        return table.folder
    inside = sorted(path for path in table.folder.iterdir() if path.is_dir())[:MAX_FOLDERS]
    having = [folder for folder in inside if any(_is_image(folder, path) for path in paths)]
    return having[0] if len(having) == 1 else table.folder


def _is_image(folder: Path, cell: object) -> bool:
    """Whether a cell is an image: encoded, or the path of a file that exists."""
    if isinstance(cell, ArrowImage):
        return True
    return isinstance(cell, str) and bool(cell) and "\0" not in cell and os.path.isfile(folder / cell)


def _unclear(table: Table, what: str, key: str, candidates: Sequence[str]) -> DataError:
    several = f": it could be {_listed(candidates)}" if candidates else ""
    return DataError(
        f"{table.name}: the column of {what} cannot be guessed{several}. "
        f"Set data.columns.{key} in the recipe to one of: {_listed(table.columns)}."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"
