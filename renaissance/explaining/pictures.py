"""Pictures of explanations, as PNG: the same figures give the same bytes.

Maps of signed attributions run from orange over white to purple, others from dark blue to yellow: both are told apart
without red and green. Every map has its bar of colours.

Letters in shapes: R and C rows and columns of patches, W words, J and K layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL.Image import Image
from torch import Tensor

from renaissance.api import Box

SIGNED, SHARES = "PuOr_r", "cividis"
DPI = 120
LINE = 38  # characters of a line of words
MONO = "DejaVu Sans Mono"  # which matplotlib brings
# lines that are told apart in grey too
STYLES = (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"), ("#000000", "-"))


def draw_map(
    path: Path,
    picture: Image,
    patches: Tensor,
    words: Sequence[tuple[str, float]],
    *,
    title: str,
    meaning: str,
    signed: bool,
    boxes: Sequence[Box] = (),
) -> None:
    """Draw a map [R, C] over its picture in grey, the words below shaded by their values, and what the colours mean.

    signed: values are additions to an output, of either sign, and one scale holds for patches and words; else they are
    shares, of many patches and few words: the words have a scale of their own, up to their greatest. boxes: outlined,
    the first one solid.
    """
    lines = _lines([word for word, _ in words])
    of_patches, of_words = _scales(patches, [value for _, value in words], signed=signed)
    below = 0.34 * len(lines) + 0.1  # inches
    figure = _figure(6.4, 3.4 + below)
    share = below / (3.4 + below)
    plain, over = (figure.add_axes((left, share, 0.4, 0.9 - share)) for left in (0.02, 0.45))
    plain.imshow(picture, extent=(0, 1, 1, 0))
    over.imshow(picture.convert("L"), extent=(0, 1, 1, 0), cmap="gray", vmin=0, vmax=255)
    colours = colormaps[SIGNED if signed else SHARES]
    values = patches.numpy()
    heat = over.imshow(values, extent=(0, 1, 1, 0), cmap=colours, norm=of_patches, alpha=0.65, interpolation="nearest")
    for number, (left, top, width, height) in enumerate(boxes):
        dash = "--" if number else "-"
        over.add_patch(Rectangle((left, top), width, height, linestyle=dash, linewidth=1.6, fill=False))
    for axes in (plain, over):
        axes.set_axis_off()
    bar = figure.colorbar(heat, cax=figure.add_axes((0.87, share + 0.03, 0.02, 0.84 - share)))
    bar.set_label(meaning, fontsize=7)
    bar.ax.tick_params(labelsize=6)
    figure.suptitle(title, fontsize=9, y=0.985)
    _draw_words(figure, lines, [colours(of_words(value)) for _, value in words], share)
    _save(figure, path)


def _scales(patches: Tensor, words: Sequence[float], *, signed: bool) -> tuple[Normalize, Normalize]:
    of_patches = max((abs(value) for value in patches.flatten().tolist()), default=0.0)
    of_words = max((abs(value) for value in words), default=0.0)
    if signed:
        greatest = max(of_patches, of_words) or 1.0
        return Normalize(-greatest, greatest), Normalize(-greatest, greatest)
    return Normalize(0.0, of_patches or 1.0), Normalize(0.0, of_words or 1.0)


def _lines(words: Sequence[str]) -> list[list[str]]:
    lines: list[list[str]] = [[]]
    for word in words:
        if lines[-1] and sum(len(other) + 1 for other in lines[-1]) + len(word) > LINE:
            lines.append([])
        lines[-1].append(word)
    return lines


def _draw_words(figure: Figure, lines: list[list[str]], shades: list[Any], share: float) -> None:
    axes = figure.add_axes((0.02, 0.02, 0.96, share - 0.04))
    axes.set_xlim(-0.1, max(LINE, max(sum(len(word) + 1 for word in line) for line in lines)))
    axes.set_ylim(len(lines), 0)
    axes.set_axis_off()
    waiting = iter(shades)
    for row, line in enumerate(lines):
        left = 0.0
        for word in line:
            shade = next(waiting)
            axes.add_patch(Rectangle((left, row + 0.08), len(word) + 0.7, 0.84, facecolor=shade, edgecolor="#999999"))
            ink = "black" if _lightness(shade) > 0.45 else "white"
            middle = left + (len(word) + 0.7) / 2, row + 0.52
            # a dollar sign would begin a formula
            axes.text(*middle, word.replace("$", r"\$"), ha="center", va="center", fontsize=9, color=ink, family=MONO)
            left += len(word) + 1


def _lightness(colour: Sequence[float]) -> float:
    return 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]


def draw_matrix(
    path: Path,
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    names: tuple[str, str],
) -> None:
    """Draw similarities [J, K] of layers as a map from 0 to 1; names: what the rows are of, and the columns."""
    side = max(3.2, 0.28 * len(columns) + 1.9), max(2.6, 0.28 * len(rows) + 1.5)
    figure = _figure(*side)
    axes = figure.add_subplot()
    heat = axes.imshow(np.array(values, dtype=float), cmap=SHARES, vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks(range(len(columns)), list(columns), rotation=90, fontsize=6)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=6)
    axes.set_ylabel(names[0], fontsize=7)
    axes.set_xlabel(names[1], fontsize=7)
    axes.set_title(title, fontsize=8)
    bar = figure.colorbar(heat, ax=axes, fraction=0.046)
    bar.set_label("linear CKA", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    _save(figure, path)


def draw_lines(
    path: Path,
    layers: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    *,
    title: str,
    measure: str,
    flat: Mapping[str, float] | None = None,
) -> None:
    """Draw values by layer, a line for each of the series; flat: for each a level to compare with, in its colour."""
    figure = _figure(max(5.6, 0.3 * len(layers) + 2.6), 3.1)
    axes = figure.add_subplot()
    for place, (name, values) in enumerate(series.items()):
        colour, dash = STYLES[place % len(STYLES)]
        shown = [math.nan if value is None else value for value in values]
        axes.plot(range(len(layers)), shown, color=colour, linestyle=dash, marker="o", markersize=3, label=name)
        if flat is not None:
            axes.axhline(flat[name], color=colour, linewidth=0.7, linestyle=(0, (1, 3)))
    axes.set_xticks(range(len(layers)), list(layers), rotation=90, fontsize=6)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylabel(measure, fontsize=7)
    axes.set_title(title, fontsize=8)
    axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.01, 0.5))
    _save(figure, path)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    # without its own version in the file, which is not of the figures
    figure.savefig(path, format="png", metadata={"Software": None}, bbox_inches="tight", facecolor="white")
