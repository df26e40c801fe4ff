"""Visual Genome: `region_descriptions.json`, the images in `VG_100K/` and `VG_100K_2/`, and `image_data.json` if there.

An item is an image with the phrases of its regions as texts, and the regions as boxes, in the same order. From
`image_data.json` come the ids that an image has in COCO and Flickr, by which overlaps are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from renaissance.api import Box
from renaissance.data.layouts import Problems, RawImage, RawItem
from renaissance.data.readers.streams import json_items
from renaissance.data.readers.texts import clean_texts

REGIONS = "region_descriptions.json"
FACTS = "image_data.json"
FOLDERS = ("VG_100K", "VG_100K_2")


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each image, all in the split `train`: none is published.

    Raises:
        DataError: the file of regions is missing or damaged.
        SampleError: an entry cannot be used, and bad samples are errors.
    """
    others = _others(root / FACTS)
    for number, entry in enumerate(json_items(root / REGIONS), start=1):
        row = f"{REGIONS}, image {number}"
        try:
            key, regions = str(entry["id"]), [_region(region) for region in entry["regions"]]
        except (LookupError, TypeError, ValueError) as error:
            problems.report(row, f"the entry lacks what the layout has ({type(error).__name__}: {error})")
            continue
        texts: list[str] = []
        boxes: list[Box] = []
        for phrase, box in regions:
            for text in clean_texts((phrase,), row, problems):
                texts.append(text)
                boxes.append(box)
        if not texts:
            problems.report(row, "the image has no description")
            continue
        yield RawItem(
            split="train",
            id=key,
            row=row,
            images=(RawImage(f"visual-genome:{key}", _path(root, key)),),
            texts=tuple(texts),
            boxes=tuple(boxes),
            fields=others.get(key, {}),
        )


def _region(region: Any) -> tuple[object, Box]:
    return region["phrase"], (
        float(region["x"]),
        float(region["y"]),
        float(region["width"]),
        float(region["height"]),
    )


def _path(root: Path, key: str) -> Path:
    """Return where an image is; which of the two folders it is in is not published with the regions."""
    paths = [root / folder / f"{key}.jpg" for folder in FOLDERS]
    return next((path for path in paths if path.is_file()), paths[0])


def _others(file: Path) -> dict[str, dict[str, str]]:
    """Return the ids that images have elsewhere: a few bytes for each of the 108,077 images."""
    if not file.is_file():
        return {}
    names = ("coco_id", "flickr_id")
    return {
        str(entry["image_id"]): {name: str(entry[name]) for name in names if entry.get(name) is not None}
        for entry in json_items(file)
        if isinstance(entry, dict) and "image_id" in entry
    }
