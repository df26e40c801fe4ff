"""The batch of tasks on items that a step is counted on: items that look like those of a corpus, without any data.

Letters in shapes: V images or boxes, T texts.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from renaissance.api import Batch, Item, TextInput, VisionInput
from renaissance.data.collate_items import batch_of, lay_out
from renaissance.errors import SpecError

CANDIDATES = 2  # of an item from which one is chosen
BOX = 8.0  # side in pixels


@dataclass(frozen=True, slots=True)
class _Blank:
    """An image of one colour, for tasks whose targets depend on how large it is."""

    name: str

    def read(self) -> bytes:
        """Return the bytes of a PNG."""
        buffer = io.BytesIO()
        Image.new("RGB", (int(BOX), int(BOX))).save(buffer, "PNG")
        return buffer.getvalue()


def item_batch(
    tasks: Mapping[str, Any], count: int, image_size: tuple[int, int], texts: Callable[[int], TextInput]
) -> Batch:
    """Return `count` items as these tasks read them, each image and text its own; texts(T) gives the tokens of T texts.

    An item from which one of several candidates is chosen has two of them. Each has a box, which tasks may read.

    Raises:
        SpecError: the tasks read items differently.
    """
    if len({(task.slots, task.regions, task.paired, *_counts(task)) for task in tasks.values()}) != 1:
        raise SpecError(f"The tasks {', '.join(tasks)} read items differently; ask for the cost of one at a time.")
    task = next(iter(tasks.values()))
    items = [_item(number, task) for number in range(count)]
    layout = lay_out(items, regions=task.regions, paired=task.paired)
    pixels = torch.zeros(len(layout.images), 3, *image_size, dtype=torch.uint8)
    targets = {name: task.targets([_told(item, task) for item in items]) for name, task in tasks.items()}
    return batch_of(
        items,
        layout,
        VisionInput(pixels) if layout.images else None,
        texts(len(layout.texts)) if layout.texts else TextInput(torch.zeros(0, 1).long(), torch.zeros(0, 1).bool()),
        slots=task.slots,
        targets=targets,
    )


def _item(number: int, task: Any) -> Item:
    """Return an item with as many images, boxes and texts of its own as a task reads."""
    images, boxes, texts = _counts(task)
    return Item(
        id=str(number),
        images=tuple(_Blank(f"{number}-{place}") for place in range(images)),
        texts=tuple(f"text {number}-{place}" for place in range(texts)),
        boxes=tuple((BOX * place, 0.0, BOX, BOX) for place in range(boxes)),
    )


def _counts(task: Any) -> tuple[int, int, int]:
    """Return how many images, boxes and texts an item has."""
    candidates = getattr(task.targets, "candidates", None)
    modality = getattr(task, "modality", None)
    images = 0 if modality == "text" else CANDIDATES if candidates == "images" else task.slots
    texts = 0 if modality == "vision" else CANDIDATES if candidates == "texts" or task.paired else 1
    return images, CANDIDATES if task.regions else 1, texts


def _told(item: Item, task: Any) -> Item:
    """Return an item with something that is right about it."""
    labels = getattr(task, "labels", ())
    label = labels[0] if labels else "0"
    field = getattr(task.targets, "field", None)
    fields = {} if field is None else {field: label}
    return Item(item.id, item.images, item.texts, item.row, label, (label,), item.boxes, 0, fields)
