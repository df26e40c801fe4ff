"""What library models are, read from the table that ships: facts of each at its own sizes, without its library.

The table is made by `make backbones` from models built on the meta device. What it does not hold, and what options
change in a way that only the library can tell, is left to the build.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from renaissance.api import UNKNOWN, Capabilities, Modality, Positions
from renaissance.errors import SpecError

TABLE = Path(__file__).with_name("backbones.json")

Library = Literal["timm", "open-clip"]


class VisionRow(NamedTuple):
    """A vision model at the size of its weights; None is not known, but for `depth`: no blocks are listed.

    token_side: pixels a side of what a token stands for, where grids of other sizes follow from it. size_step: sides of
    images are its multiples; 0: it takes its own size alone. refused: why no one-tower model can be based on it. tags:
    those of its weights, the default one first, each with "=side" where its images differ ("=0": are no squares).
    """

    width: int
    depth: int | None
    class_token: bool
    image_size: int | None
    patch_size: int | None
    grid: tuple[int, int] | None
    token_side: int | None
    size_step: int | None
    any_resolution: bool
    positions: Positions | None
    refused: str | None
    tags: str


class TextRow(NamedTuple):
    """A text model; `refused` and `tags` are as for vision models."""

    width: int
    depth: int | None
    class_token: bool
    max_tokens: int | None
    vocabulary: int | None
    positions: Positions | None
    refused: str | None
    tags: str


def made_with(library: Library) -> str:
    """Return the version of the library that the table was made with."""
    version: str = _table()[library]["version"]
    return version


def known_models(library: Library, modality: Modality) -> tuple[str, ...]:
    """Return the models that the table holds."""
    return tuple(_table()[library].get(modality, ()))


def vision_row(library: Library, model: str) -> VisionRow | None:
    """Return what is known of a vision model; None: the table does not hold it.

    Raises:
        SpecError: it cannot be a backbone; the message says why.
    """
    values = _values(library, "vision", model)
    if values is None:
        return None
    row = VisionRow(**values)
    return row._replace(
        class_token=bool(row.class_token),
        any_resolution=bool(row.any_resolution),
        grid=None if row.grid is None else (row.grid[0], row.grid[1]),
    )


def text_row(library: Library, model: str) -> TextRow | None:
    """Return what is known of a text model; None: the table does not hold it.

    Raises:
        SpecError: it cannot be a backbone; the message says why.
    """
    values = _values(library, "text", model)
    return None if values is None else TextRow(**{**values, "class_token": bool(values["class_token"])})


def vision_facts(
    row: VisionRow, name: str, *, own: int | None, image_size: int | None = None, layers: int | None = None
) -> Capabilities:
    """Return what a vision model is at an image size, cut to its first layers; `own`: the side of its weights' images.

    Raises:
        SpecError: it cannot be cut so, or does not take images of that size; the message has the nearest that it takes.
    """
    if image_size is not None:
        _check_size(row, name, image_size)
    side = own if image_size is None else image_size
    return Capabilities(
        width=row.width,
        depth=_depth(row.depth, name, layers),
        layered=row.depth is not None,
        class_token=row.class_token,
        image_size=UNKNOWN if side is None else side,
        patch_size=row.patch_size,
        any_resolution=row.any_resolution,
        grid=_grid(row, side),
        positions=row.positions or UNKNOWN,
        base=row.refused is None,
        refused=row.refused or "",
        size_step=_size_step(row),
    )


def text_facts(row: TextRow, name: str, *, layers: int | None = None) -> Capabilities:
    """Return what a text model is, cut to its first layers.

    Raises:
        SpecError: it cannot be cut so.
    """
    return Capabilities(
        width=row.width,
        depth=_depth(row.depth, name, layers),
        layered=row.depth is not None,
        class_token=row.class_token,
        max_tokens=UNKNOWN if row.max_tokens is None else row.max_tokens,
        vocabulary=UNKNOWN if row.vocabulary is None else row.vocabulary,
        positions=row.positions or UNKNOWN,
        base=row.refused is None,
        refused=row.refused or "",
    )


def without_numbers(facts: Capabilities, layers: int | None) -> Capabilities:
    """Return facts of which only the kind is left: whether there are blocks, and what can be based on them.

    For a model of which an argument of the library is overridden: any number may follow from that.
    """
    return replace(
        facts,
        width=UNKNOWN,
        depth=UNKNOWN if layers is None else layers,
        class_token=UNKNOWN,
        patch_size=UNKNOWN,
        any_resolution=UNKNOWN,
        grid=UNKNOWN,
        positions=UNKNOWN,
        size_step=UNKNOWN,
    )


def tags_of(row: VisionRow | TextRow) -> Mapping[str, int | None]:
    """Return the tags of a model's weights, each with the side of its images; None: not known."""
    own = row.image_size if isinstance(row, VisionRow) else None
    named = (tag.partition("=") for tag in row.tags.split())
    return {tag: (int(side) or None) if side else own for tag, _, side in named}


# --- reading ----------------------------------------------------------------------------------------------------------


@cache
def _table() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return found


def _values(library: Library, modality: Modality, model: str) -> dict[str, Any] | None:
    """Return a row by the names of its columns, its reason in words."""
    table = _table()[library]
    row = table.get(modality, {}).get(model)
    if isinstance(row, str):
        raise SpecError(row)
    if row is None:
        return None
    columns = VisionRow._fields if modality == "vision" else TextRow._fields
    values = dict(zip(columns, row, strict=True))
    reason = values["refused"]
    return values | {"refused": None if reason is None else _table()["reasons"][reason]}


# --- what options change ----------------------------------------------------------------------------------------------


def _depth(depth: int | None, name: str, layers: int | None) -> Any:
    """Return the number of blocks that are built; `Unknown` where none are listed."""
    if depth is None:
        if layers is not None:
            raise SpecError(f"'{name}' does not list its layers, so none can be cut away; leave out layers={layers}.")
        return UNKNOWN
    if layers is not None and layers > depth:
        raise SpecError(f"'{name}' has {depth} layers, not {layers}; use layers={depth} or fewer.")
    return depth if layers is None else layers


def _check_size(row: VisionRow, name: str, size: int) -> None:
    own, step = row.image_size, row.size_step
    if step == 0 and own is not None and size != own:
        raise SpecError(f"'{name}' takes images of {own} x {own} pixels alone, not {size}; use image_size={own}.")
    if step and size % step:
        nearest = max(step, round(size / step) * step)
        raise SpecError(
            f"'{name}' takes images whose sides are multiples of {step} pixels, not {size}; use image_size={nearest}."
        )


def _size_step(row: VisionRow) -> Any:
    """Return what image sides are multiples of; None where any side will do."""
    if row.size_step == 0:
        return UNKNOWN if row.image_size is None else row.image_size
    return UNKNOWN if row.size_step is None else row.size_step if row.size_step > 1 else None


def _grid(row: VisionRow, side: int | None) -> Any:
    """Return rows and columns of tokens at an image size: None where the tokens are no grid."""
    if row.grid is None or (side is not None and side == row.image_size):
        return row.grid
    if side is None or row.token_side is None or side % row.token_side:
        return UNKNOWN
    return (side // row.token_side, side // row.token_side)
