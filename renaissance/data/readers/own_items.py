"""Items of the user's own: `train.jsonl`, `val.jsonl` ..., the name of each file is that of its split.

A line is an item: {"images": ["a.png"], "texts": ["is it red?"], "label": "yes"}, with what else its task reads:
`answers`, `boxes` ([[left, top, width, height], ...]), `target` (the number of the right candidate) and `id`. `image`
and `text` stand for a single one. Images are files below the root. All other keys become fields of the item.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.data.layouts import Problems, RawImage, RawItem, require
from renaissance.data.readers.labelled import below, box_of, id_of, text_of, usable
from renaissance.data.readers.published_labelled import ITEMS_PAGE
from renaissance.data.readers.streams import json_lines
from renaissance.spec import shown

KNOWN = ("id", "image", "images", "text", "texts", "label", "answers", "boxes", "target")


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each line of each file.

    Raises:
        DataError: there is no such file.
        SampleError: a line cannot be used, and bad samples are errors.
    """
    files = sorted(root.glob("*.jsonl"))
    if not files:
        require(root, "train.jsonl", page=ITEMS_PAGE)
    for file in files:
        rows = ((f"{file.name}, line {number}", (number, entry)) for number, entry in json_lines(file))
        yield from usable(rows, _Maker(root, file.stem), problems)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the items of a split."""

    root: Path
    split: str

    def __call__(self, row: str, line: tuple[int, Any]) -> RawItem:
        number, entry = line
        if not isinstance(entry, dict):
            raise ValueError("it is no JSON object")
        images, texts = _several(entry, "image"), _several(entry, "text")
        if not images and not texts:
            raise ValueError("it has neither images nor texts")
        target = entry.get("target")
        if target is not None and (isinstance(target, bool) or not isinstance(target, int) or target < 0):
            raise ValueError(f"'target' is {shown(repr(target))}, and no number of a candidate")
        label = entry.get("label")
        return RawItem(
            split=self.split,
            id=id_of(entry, "id") if "id" in entry else f"{self.split}-{number}",
            row=row,
            images=tuple(RawImage(name, below(self.root, name)) for name in images),
            texts=tuple(text_of({"text": text}, "text") for text in texts),
            label=None if label is None else _told(label, "label"),
            answers=tuple(_told(answer, "answers") for answer in _list(entry, "answers")),
            boxes=tuple(box_of(box) for box in _list(entry, "boxes")),
            target=target,
            fields={key: _told(value, key) for key, value in entry.items() if key not in KNOWN and value is not None},
        )


def _several(entry: Mapping[str, Any], one: str) -> list[Any]:
    """Return what stands under "image" or "images" ("text" or "texts")."""
    many = f"{one}s"
    if one in entry and many in entry:
        raise ValueError(f"it has '{one}' and '{many}'; keep one of them")
    return [entry[one]] if one in entry else _list(entry, many)


def _list(entry: Mapping[str, Any], key: str) -> list[Any]:
    value = entry.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"'{key}' is {shown(repr(value))}, and no list")
    return value


def _told(value: object, key: str) -> str:
    """Return a label, an answer or a field as text: a number or a truth value is written as JSON has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise ValueError(f"'{key}' is {shown(repr(value))}, neither text nor a number")
    return str(value)
