"""Small prepared data for tests of what evaluation does with them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from renaissance.data.prepared import Writer


def picture(number: int) -> bytes:
    """Return a PNG unlike that of any other number."""
    generator = torch.Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8, generator=generator)
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def write(out: Path, layout: str, splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """Write items, each with `images`, numbers, and what else `Writer.item` takes."""
    with Writer(out) as writer:
        known: set[int] = set()
        for split, items in splits.items():
            for place, item in enumerate(items):
                given = dict(item)
                numbers = given.pop("images")
                for number in set(numbers) - known:
                    writer.image(f"p{number}", picture(number), f"p{number}.png")
                known |= set(numbers)
                writer.item(split, f"{split}-{place}", images=[f"p{number}" for number in numbers], **given)
        writer.finish({"layout": layout})
    return out


def captioned(*numbers: int) -> list[dict[str, Any]]:
    """Return an image with two captions for each number."""
    return [{"images": [number], "texts": [f"picture {number}", f"another of {number}"]} for number in numbers]


def pairs(*numbers: int) -> list[dict[str, Any]]:
    """Return items of SugarCrepe: an image, the true caption and a false one."""
    told = {"target": 0, "fields": {"subset": "swap_att"}}
    return [{"images": [number], "texts": [f"a {number} cup", f"a cup {number}"], **told} for number in numbers]
