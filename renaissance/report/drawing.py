"""Figures as SVG whose bytes do not depend on when or where they are drawn, for light pages and dark ones.

What draws knows inks, not colours: an ink is a colour that stands for itself until the figure is put into a page, where
it becomes a variable of the style sheet, or into a file of its own, where it becomes one that both grounds show well.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

WIDE, NARROW = 720, 360  # units of a drawing, which are pixels where there is room
INK, MUTED, LINE, GROUND = "#010101", "#010102", "#010103", "#010104"
GOOD, BAD, OPEN, NONE = "#010201", "#010202", "#010203", "#010204"
SERIES = tuple(f"#0103{number:02x}" for number in range(8))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))

_APART = ("#2f7fc1", "#d0600a", "#12916b", "#a066c4", "#a87a10", "#2d95b8", "#cc5f97", "#7b8088")
_VARIABLES = {
    INK: ("var(--ink)", "#7d848c"),
    MUTED: ("var(--muted)", "#7d848c"),
    LINE: ("var(--line)", "#8a919a80"),
    GROUND: ("var(--paper)", "#ffffff00"),
    GOOD: ("var(--good)", "#12916b"),
    BAD: ("var(--bad)", "#d0600a"),
    OPEN: ("var(--open)", "#a87a10"),
    NONE: ("var(--muted)", "#7d848c"),
    **{ink: (f"var(--series-{number})", _APART[number]) for number, ink in enumerate(SERIES)},
}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 12,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans"],  # ships with matplotlib: the layout is the same everywhere
    "font.size": 12,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "hatch.color": LINE,
    "legend.fontsize": 12,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 2,
    "path.simplify": True,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # names of arms are no formulas
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 11.5,
    "ytick.color": LINE,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 11.5,
    "ytick.major.size": 0,
}
_TAG = re.compile(r"<[^>]+>")
_LONG = re.compile(r"-?\d+\.\d{3,}")
_ID = re.compile(r'(\bid="|href="#|url\(#)')


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure: its name, its caption, what it shows in words, and its SVG in inks, for wide pages and narrow ones."""

    name: str
    caption: str
    alt: str
    wide: str
    narrow: str

    @property
    def inline(self) -> str:
        """The elements for a page that has the style sheet, which shows one of them."""
        return _inked(self.wide + self.narrow, 0)

    @property
    def standalone(self) -> str:
        """The text of a file of its own."""
        return '<?xml version="1.0" encoding="utf-8"?>\n' + _inked(self.wide, 1)


def drawn(name: str, caption: str, alt: str, draw: Callable[[int], Any]) -> Drawing:
    """Return a figure; `draw` returns what is on its paper, for a width in units."""
    with mpl.rc_context({**mpl.rcParamsDefault, **_STYLE, "svg.hashsalt": name}):
        wide, narrow = (_svg(draw(width), name, alt, width) for width in (WIDE, NARROW))
    return Drawing(name, caption, alt, wide, narrow)


def paper(width: float, height: float) -> Any:
    """Return an empty figure of a size in units."""
    return Figure(figsize=(width / 72, height / 72), dpi=72)


def box(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Return axes at a place in units of the drawing, from its upper left corner."""
    across, down = figure.get_figwidth() * 72, figure.get_figheight() * 72
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def _svg(figure: Any, name: str, alt: str, width: int) -> str:
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"(?<=font: )([^;\"]*?[\d.]+px) [^;\"]*", rf"\1 {_FONT}", svg)
    own = f"{name}-{width}-"  # names of two figures in one page
    svg = _TAG.sub(lambda tag: _ID.sub(rf"\1{own}", _LONG.sub(_rounded, tag[0])), svg)
    svg = re.sub(r'width="[^"]+" height="[^"]+" ', "", svg, count=1)
    said = f'class="{"wide" if width == WIDE else "narrow"}" role="img" aria-label="{escape(alt)}"'
    svg = svg.replace("<svg ", f'<svg {said} width="{width}" ', 1)
    return re.sub(r"\n\s*", "\n", svg).strip() + "\n"


def amounts(axis: Any, *, most: int = 5) -> None:
    """Label an axis of counts: '20k', '1.5T'."""
    axis.set_major_locator(MaxNLocator(most))
    axis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))


def amount(value: float) -> str:
    """Return a count as short as can be: '20k', '1.5T'."""
    power = 0
    while abs(value) >= 1000 and power < 7:
        value, power = value / 1000, power + 1
    return f"{value:.3g}{('', 'k', 'M', 'G', 'T', 'P', 'E', 'Z')[power]}"


def cut(text: str, length: int) -> str:
    """Return a text that is not longer than that."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _inked(svg: str, which: int) -> str:
    for ink, colours in _VARIABLES.items():
        svg = svg.replace(ink, colours[which])
    return svg
