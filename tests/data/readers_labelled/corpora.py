"""Writes small corpora in their published layouts, and looks at what was prepared."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from renaissance.api import Item
from renaissance.data.prepared import Prepared


def write_images(folder: Path, *names: str) -> None:
    """Write an image for each name, whose colour follows from the name, in the format of its suffix."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), colour_of(path.name)).save(path)


def colour_of(name: str) -> tuple[int, int, int]:
    return (sum(name.encode()) % 256, 90, 10)


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ids(data: Prepared, split: str) -> list[str]:
    return [item.id for item in data.items(split)]


def only(data: Prepared, split: str) -> Item:
    (item,) = data.items(split)
    return item


def picture(item: Item, number: int = 0) -> Image.Image:
    return Image.open(io.BytesIO(item.images[number].read())).convert("RGB")


def skipped(data: Prepared) -> list[str]:
    rows = data.manifest["skipped"]["rows"]
    assert data.manifest["skipped"]["count"] == len(rows)
    return list(rows)
