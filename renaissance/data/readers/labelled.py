"""What the readers of labelled corpora share: rows that cannot be used are told of, with what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from renaissance.api import Box
from renaissance.data.captions import clean_caption
from renaissance.data.layouts import Problems, RawItem, require
from renaissance.spec import shown

Row = TypeVar("Row")


def usable(
    rows: Iterable[tuple[str, Row]], make: Callable[[str, Row], RawItem], problems: Problems
) -> Iterator[RawItem]:
    """Yield what `make` gives for each row and its name; those that it refuses with a ValueError are told of.

    Raises:
        SampleError: a row cannot be used, and bad samples are errors.
    """
    for name, row in rows:
        try:
            item = make(name, row)
        except KeyError as error:
            problems.report(name, f"it has no {error}")
        except ValueError as error:
            problems.report(name, str(error))
        except (LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            problems.report(name, f"it lacks what the layout has ({type(error).__name__}: {error})")
        else:
            yield item


def text_of(entry: Mapping[str, Any], key: str) -> str:
    """Return a text as it will be tokenized.

    Raises:
        KeyError, ValueError: there is none.
    """
    try:
        return clean_caption(entry[key])
    except ValueError as error:
        raise ValueError(f"'{key}': {str(error).replace('the caption', 'the text', 1)}") from None


def id_of(entry: Mapping[str, Any], key: str) -> str:
    """Return a number or name that tells something apart, as text.

    Raises:
        KeyError, ValueError: there is none.
    """
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise ValueError(f"'{key}' is {shown(repr(value))}, neither a number nor a name")
    return str(value)


def label_of(value: object, labels: Sequence[str]) -> str:
    """Return a label if it is in the set.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, str) or value not in labels:
        raise ValueError(f"the label {shown(repr(value))} is none of {', '.join(labels)}")
    return value


def box_of(values: Sequence[Any]) -> Box:
    """Return [left, top, width, height] in pixels as a box.

    Raises:
        TypeError, ValueError: it is not four finite numbers, or has no area.
    """
    left, top, width, height = (float(value) for value in values)
    if not all(map(math.isfinite, (left, top, width, height))) or width <= 0 or height <= 0:
        raise ValueError(f"the box {shown(repr(values))} is not left, top, width and height with an area")
    return left, top, width, height


def below(folder: Path, name: object) -> Path:
    """Return the path of a file that a row names.

    Raises:
        ValueError: it is no name, or leads out of the folder.
    """
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        raise ValueError(f"{shown(repr(name))} is not the name of a file")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"the file name {shown(repr(name))} leads out of '{folder.name}'")
    return folder / name


def splits_there(root: Path, files: Mapping[str, str], *, page: str) -> dict[str, Path]:
    """Return the files of the splits that were downloaded, by split, in the order given.

    Raises:
        DataError: there is none.
    """
    found = {split: root / name for split, name in files.items() if (root / name).is_file()}
    if not found:
        require(root, next(iter(files.values())), page=page)
    return found


def image_folder(root: Path, names: Sequence[str], problems: Problems, *, page: str) -> Path:
    """Return the first of these folders that is there; where rows may be left out, it may be missing.

    Raises:
        DataError: none is there, and bad samples are errors.
    """
    for name in names:
        if (root / name).is_dir():
            return root / name
    if problems.on_bad_sample == "error":
        require(root, names[0], page=page)
    return root / names[0]
