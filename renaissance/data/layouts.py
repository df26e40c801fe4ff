"""The published layouts of corpora that can be prepared, and what their readers give. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import cast

from renaissance.api import Box
from renaissance.errors import DataError, SampleError
from renaissance.recipe.values import OnBadSample
from renaissance.spec import did_you_mean, shown

MAX_LINES = 1000


class MissingImageError(SampleError):
    """An image of a corpus is not there: a part of it that was not downloaded, and no damage."""


def unreadable(path: Path, error: OSError) -> SampleError:
    """Return the error of an image that cannot be read."""
    kind = MissingImageError if isinstance(error, FileNotFoundError) else SampleError
    return kind(f"The image '{path}' cannot be read ({error.strerror or error}).")


@dataclass(frozen=True, slots=True)
class RawImage:
    """An image of a corpus: its id, which is the same wherever the image is used, and where its bytes are."""

    id: str
    path: Path
    data: bytes | None = None

    def read(self) -> bytes:
        """Return the bytes as published.

        Raises:
            MissingImageError: there is no such file.
            SampleError: it cannot be read.
        """
        if self.data is not None:
            return self.data
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise unreadable(self.path, error) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class RawItem:
    """An item as a reader gives it; `row` says where it stands ("dev.json, line 7"). See `renaissance.api.Item`."""

    split: str
    id: str
    row: str
    images: tuple[RawImage, ...]
    texts: tuple[str, ...]
    label: str | None = None
    answers: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    target: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Problems:
    """What a reader does with a row that cannot be used: raise, or leave it out and count it.

    skipped: a line for each of the first thousand rows left out. count: how many were. missing: how many of these for
    an image that is not there.
    """

    on_bad_sample: OnBadSample
    skipped: list[str] = field(default_factory=list)
    count: int = 0
    missing: int = 0
    first: str = ""

    def report(self, row: str, fault: str, *, missing: bool = False) -> None:
        """Tell of a row that cannot be used ("dev.json, line 7"), and why ("the label 'maybe' is none of ...").

        missing: it is no fault but a part of the corpus that is not there, such as an image never downloaded.

        Raises:
            SampleError: bad samples are errors.
        """
        line = f"{row}: {fault}"
        if self.on_bad_sample == "error":
            raise SampleError(f"{line}. Mend it, or leave such rows out with --on-bad-sample skip.")
        self.count += 1
        self.missing += missing
        if not missing:
            self.first = self.first or line
        if len(self.skipped) < MAX_LINES:
            self.skipped.append(line)


Read = Callable[[Path, Problems], Iterator[RawItem]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A corpus as it is published.

    read: "package.module:callable", read(root, problems) -> items, in constant memory; version: raised whenever it
    gives something else for the same files. page: where it is downloaded, by the name of the page. files: what must be
    below the root (names, or patterns such as "*.tar"; a folder of images ends in "/", and may be missing where rows
    are left out). optional: what is read as well where it is there. counts: the published number of items of each
    split, and of images under "images", where it is published. texts: that of texts, where it is another.
    counted: where these numbers were read.
    """

    name: str
    summary: str
    read: str
    page: str
    files: tuple[str, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    texts: Mapping[str, int] = field(default_factory=dict)
    counted: str = ""
    optional: tuple[str, ...] = ()
    version: int = 1

    def reader(self) -> Read:
        """Import the reader."""
        module, _, name = self.read.partition(":")
        return cast(Read, getattr(import_module(module), name))


def require(root: Path, name: str, *, page: str) -> Path:
    """Return a file or folder below the root.

    Raises:
        DataError: it is missing; the message names it and the page where it is downloaded.
    """
    path = root / name
    if not path.exists():
        raise DataError(f"'{root}' has no '{name}'. Download it ({page}), and unpack it there.")
    return path


def chosen_layout(name: str, layouts: Mapping[str, Layout]) -> Layout:
    """Return a layout by its name.

    Raises:
        DataError: there is none.
    """
    layout = layouts.get(name)
    if layout is None:
        raise DataError(
            f"No layout is called '{shown(name)}'.{did_you_mean(name, layouts)} Known: {', '.join(layouts)}."
        )
    return layout
