"""A report as text: one HTML page that asks nothing of a network, and the same as Markdown."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined

from renaissance.report.blocks import Block, Figure, Folded, Section, Told
from renaissance.report.drawing import Drawing
from renaissance.spec import shown

_LONGEST = 4000
# an underscore between letters is no markup
_MARKUP = re.compile(r"([\\`*\[\]<>|~#$]|(?<!\w)_|_(?!\w)|^[-+=](?=[\s=-]|$))")
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Page:
    """A page: its head, what answers it in a line, and its sections; empty ones are left out."""

    kind: str
    title: str
    asked: str
    meta: str
    answer: Told | None
    warning: str
    version: str
    footer: str
    given: Sequence[Section]

    @property
    def sections(self) -> list[Section]:
        """The sections that hold something."""
        return [section for section in self.given if section.blocks]

    @property
    def drawings(self) -> list[Drawing]:
        """The figures, in their order."""
        return [drawing for section in self.sections for drawing in _drawings(section.blocks)]


def html(page: Page) -> str:
    """Return the page as one HTML file, in which whatever comes from files is text."""
    environment = _environment(autoescape=True)
    script = _part("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("report.html.jinja")
    return template.render(page=page, style=_part("report.css"), script=script, script_digest=f"sha256-{digest}")


def markdown(page: Page) -> str:
    """Return the page as Markdown; its figures are files in 'figures'."""
    environment = _environment(autoescape=False)
    environment.filters |= {"plain": plain, "code": code, "fenced": fenced}
    text = environment.get_template("report.md.jinja").render(page=page)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment(*, autoescape: bool) -> Environment:
    loader = FunctionLoader(_part)
    return Environment(
        loader=loader, autoescape=autoescape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def plain(text: object) -> str:
    """Return text as Markdown that shows exactly it, on one line."""
    escaped = _MARKUP.sub(r"\\\1", shown(text, _LONGEST).replace("&", "&amp;"))
    return _NUMBERED.sub(r"\1\\\2", escaped)


def code(text: object) -> str:
    """Return text as code on one line, in a fence that it does not close; in a table a stroke ends no cell."""
    line = shown(text, _LONGEST).replace("|", "\\|")
    fence = "`" * (_longest_fence(line) + 1)
    inside = f" {line} " if line.startswith("`") or line.endswith("`") else line
    return f"{fence}{inside}{fence}" if line else ""


def fenced(text: str) -> str:
    """Return lines for a shell, in a fence that they do not close."""
    fence = "`" * max(3, _longest_fence(text) + 1)
    lines = "\n".join(shown(line, _LONGEST) for line in text.splitlines())
    return f"{fence}bash\n{lines}\n{fence}"


def _longest_fence(text: str) -> int:
    return max(map(len, re.findall(r"`+", text)), default=0)


def _part(name: str) -> str:
    return files("renaissance.report").joinpath(name).read_text(encoding="utf-8")


def _drawings(blocks: Sequence[Block]) -> Iterator[Drawing]:
    for block in blocks:
        if isinstance(block, Figure):
            yield block.drawing
        elif isinstance(block, Folded):
            yield from _drawings(block.blocks)
