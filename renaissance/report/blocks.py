"""What a report is made of: sections of blocks, which one template writes as HTML and another as Markdown.

Texts are plain: whoever writes them out escapes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from renaissance.report.drawing import Drawing
from renaissance.report.pictures import Picture
from renaissance.report.wording import NOTHING, Badge


@dataclass(frozen=True, slots=True)
class Strip:
    """An interval as a small drawing, in percent of the width."""

    low: float
    mean: float
    high: float


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table: its text, what it is sorted by (None: the text, or no number), and what is drawn beside it."""

    text: str
    order: float | None = None
    bar: float | None = None  # a share of 1
    strip: Strip | None = None
    badge: Badge | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column: of words, numbers, code, or drawings alone (left out where there are none)."""

    title: str
    kind: Literal["words", "number", "code", "drawn"] = "words"


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph."""

    kind: ClassVar[str] = "paragraph"
    text: str
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list."""

    kind: ClassVar[str] = "bullets"
    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Command:
    """Lines for a shell."""

    kind: ClassVar[str] = "command"
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table that can be sorted by each of its columns; the first cell of a row names it."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with what they stand for."""

    kind: ClassVar[str] = "facts"
    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with its caption."""

    kind: ClassVar[str] = "figure"
    drawing: Drawing


@dataclass(frozen=True, slots=True)
class Told:
    """A hypothesis or a claim with its verdict, the facts that one asks for first, and more of them."""

    kind: ClassVar[str] = "told"
    anchor: str
    name: str
    says: str
    badge: Badge
    standing: str
    lines: Sequence[str]
    facts: list[tuple[str, str]] = field(default_factory=list)
    more: list[tuple[str, str]] = field(default_factory=list)
    leading: bool = False
    level: int = 3  # of its heading


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture of a gallery, or none, with what is said of it."""

    picture: Picture | None
    title: str
    lines: Sequence[str]
    badge: Badge | None = None
    query: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A way to another file beside the report."""

    kind: ClassVar[str] = "link"
    text: str
    to: str


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures side by side."""

    kind: ClassVar[str] = "gallery"
    shown: Sequence[Shown]
    large: bool = False


@dataclass(frozen=True, slots=True)
class Folded:
    """Blocks below a line that opens and closes them."""

    kind: ClassVar[str] = "folded"
    title: str
    blocks: Sequence[Block]
    open: bool = False


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    text: str


Block = Paragraph | Bullets | Command | Table | Facts | Figure | Told | Gallery | Folded | Heading | Link


@dataclass(frozen=True, slots=True)
class Section:
    """A section, with its name in addresses."""

    anchor: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def without_empty(table: Table) -> Table:
    """Return a table without the columns in which no row has anything."""
    kept = [place for place in range(len(table.columns)) if any(row[place] != Cell(NOTHING) for row in table.rows)]
    rows = [[row[place] for place in kept] for row in table.rows]
    return Table(table.caption, [table.columns[place] for place in kept], rows)


def words(text: str) -> Cell:
    """Return a cell of text."""
    return Cell(text)


def number(text: str, order: float | None) -> Cell:
    """Return a cell of a number, as it is written and as it is sorted; no number is sorted before all others."""
    return Cell(text, order)
