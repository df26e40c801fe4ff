"""The Markdown of a card: what comes from files is plain text in it, and never markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from renaissance.spec import shown

_LONGEST = 300
# an underscore between letters is no markup
_MARKUP = re.compile(r"([\\`*\[\]<>|~#]|(?<!\w)_|_(?!\w))")
_ENTITIES = {"&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;", "#": "&#35;"}


def plain(text: object) -> str:
    """Return text as Markdown that shows exactly it, on one line."""
    return _MARKUP.sub(r"\\\1", shown(text, _LONGEST).replace("&", "&amp;"))


def code(text: object, limit: int = _LONGEST) -> str:
    """Return text as code on one line, in a fence that it does not close."""
    line = shown(text, limit)
    longest = max(map(len, re.findall(r"`+", line)), default=0)
    fence = "`" * (longest + 1)
    inside = f" {line} " if line.startswith("`") or line.endswith("`") else line
    return f"{fence}{inside}{fence}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()) -> str:
    """Return a table of cells that are Markdown already; `right` names columns that are aligned to the right."""
    aligned = set(right)
    rule = ["---:" if column in aligned else "---" for column in columns]
    lines = [columns, rule, *rows]
    assert all(len(line) == len(columns) for line in lines), "each row has a cell for each column"
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    """Return a list."""
    return "\n".join(f"- {line}" for line in lines)


def label(lines: Iterable[str]) -> str:
    """Return the text of a box of a mermaid drawing, one line below the other."""
    escaped = ("".join(_ENTITIES.get(character, character) for character in shown(line)) for line in lines)
    return '"' + "<br>".join(escaped) + '"'
