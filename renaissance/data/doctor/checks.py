"""The checks of one data set: its images, then its items."""

from __future__ import annotations

import io
import math
import warnings
from array import array
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from PIL import Image

from renaissance.api import Box, Item
from renaissance.data.captions import clean_caption
from renaissance.data.decode import FORMATS, decode
from renaissance.data.doctor.report import Findings
from renaissance.data.doctor.sources import Source
from renaissance.data.records import ImageSource
from renaissance.errors import SampleError
from renaissance.progress import Progress

USUAL_MODES = ("RGB", "L")
MAX_WORDS = 100
# published boxes are rounded to pixels in several ways
BOX_SLACK = 1.0
UNREADABLE = 0  # the hash of an image that cannot be read, which is compared with none


@dataclass(slots=True)
class Images:
    """What is kept of the N images of a data set: ids, hashes and sizes in pixels; and who uses them.

    looks: perceptual hashes. contents: hashes of the bytes. members: which images each split uses, bool [N].
    also: ids that images have in another corpus, as their items tell.
    """

    ids: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    looks: array[int] = field(default_factory=lambda: array("Q"))
    contents: array[int] = field(default_factory=lambda: array("Q"))
    widths: array[int] = field(default_factory=lambda: array("I"))
    heights: array[int] = field(default_factory=lambda: array("I"))
    members: dict[str, np.ndarray] = field(default_factory=dict)
    also: dict[int, str] = field(default_factory=dict)


def check_images(
    source: Source, findings: Findings, hasher: Callable[[Image.Image], int], progress: Progress
) -> Images:
    """Read each image once: whether it can be decoded, its mode and its ids; return what is kept of them."""
    images = Images()
    for image_id, image in progress.track(source.images(), source.count, f"{source.name}: images"):
        if image_id in images.numbers:
            findings.add("image id twice", "fault", source.name, image_id)
            continue
        images.numbers[image_id] = len(images.ids)
        images.ids.append(image_id)
        for column, value in zip(
            (images.contents, images.looks, images.widths, images.heights),
            _read(source.name, image_id, image, findings, hasher),
            strict=True,
        ):
            column.append(value)
    return images


def _read(
    name: str, image_id: str, image: ImageSource, findings: Findings, hasher: Callable[[Image.Image], int]
) -> tuple[int, int, int, int]:
    """Return the hash of the bytes, the perceptual hash, width and height of an image."""
    try:
        data = image.read()
        mode = _mode(data)
        if mode and mode not in USUAL_MODES:
            findings.add(f"image mode {mode}", "note", name, image_id)
        picture = decode(data, name=image_id)
    except SampleError as error:
        kind = (
            "image of too many pixels" if "megapixels" in str(error) or "too large" in str(error) else "damaged image"
        )
        findings.add(kind, "fault", name, str(error))
        return UNREADABLE, UNREADABLE, 0, 0
    content = int.from_bytes(blake2b(data, digest_size=8).digest(), "big") or 1
    return content, hasher(picture), picture.width, picture.height


def _mode(data: bytes) -> str:
    """Return the mode of an encoded image, from its header; an empty text where there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                return picture.mode
    except Exception:  # whatever is wrong with it, decoding tells
        return ""


def check_items(
    source: Source, images: Images, findings: Findings, vocabulary: Collection[str] | None, progress: Progress
) -> dict[str, int]:
    """Check the items of each split, and note which images they use; return how many items each split has."""
    counts = {}
    for split in source.splits:
        where = f"{source.name}/{split}"
        members = np.zeros(len(images.ids), dtype=bool)
        seen: set[str] = set()
        show = progress.bar(f"{where}: items")
        for names, item in source.items(split):
            if item.id in seen:
                findings.add("item id twice", "fault", where, item.id)
            seen.add(item.id)
            used = _used(names, item, images, where, findings)
            members[used] = True
            if "coco_id" in item.fields and len(used) == 1:
                images.also[used[0]] = f"coco:{item.fields['coco_id']}"
            _check_texts(item, where, findings)
            _check_boxes(item, images, used, where, findings)
            _check_answers(item, vocabulary, where, findings)
        counts[split] = len(seen)
        show(1, 1)
        images.members[split] = members
    used_by_any = np.logical_or.reduce(list(images.members.values())) if images.members else np.zeros(0, dtype=bool)
    for index in np.flatnonzero(~used_by_any):
        findings.add("image that no item uses", "note", source.name, images.ids[index])
    return counts


def _used(names: tuple[str, ...], item: Item, images: Images, where: str, findings: Findings) -> list[int]:
    """Return the numbers of the images of an item."""
    for name in names:
        if name not in images.numbers:
            findings.add("image that is not there", "fault", where, f"{item.id}: {name}")
    if not names and not item.texts:
        findings.add("item without image and text", "fault", where, item.id)
    return [images.numbers[name] for name in names if name in images.numbers]


def _check_texts(item: Item, where: str, findings: Findings) -> None:
    cleaned = []
    for text in item.texts:
        try:
            cleaned.append(clean_caption(text))
        except ValueError as error:
            findings.add("text that cannot be used", "fault", where, f"{item.id}: {error}")
    for text in cleaned:
        if len(words := text.split()) > MAX_WORDS:
            findings.add(f"text of more than {MAX_WORDS} words", "note", where, f"{item.id}: {len(words)} words")
    if item.target is None and len(set(cleaned)) < len(cleaned):
        findings.add("text twice in an item", "note", where, item.id)


def _check_boxes(item: Item, images: Images, used: list[int], where: str, findings: Findings) -> None:
    """Check that the boxes lie in the first image, and that the target is one of the candidates."""
    candidates = max(len(item.boxes), len(item.texts), len(used))
    if item.target is not None and not 0 <= item.target < candidates:
        findings.add("target that is no candidate", "fault", where, f"{item.id}: {item.target} of {candidates}")
    if not item.boxes or not used or not images.widths[used[0]]:
        return
    width, height = images.widths[used[0]], images.heights[used[0]]
    for box in item.boxes:
        if not _inside(box, width, height):
            shown = ", ".join(f"{value:g}" for value in box)
            findings.add("box outside the image", "fault", where, f"{item.id}: [{shown}] in {width} x {height}")


def _inside(box: Box, width: int, height: int) -> bool:
    """Return whether x, y, width, height is a box with an area, within an image."""
    x, y, w, h = box
    return (
        all(map(math.isfinite, box))
        and w > 0
        and h > 0
        and min(x, y) >= -BOX_SLACK
        and x + w <= width + BOX_SLACK
        and y + h <= height + BOX_SLACK
    )


def _check_answers(item: Item, vocabulary: Collection[str] | None, where: str, findings: Findings) -> None:
    """Check the label, or one of the answers where there is no label, against what can be said."""
    if vocabulary is None:
        return
    if item.label is not None:
        if item.label not in vocabulary:
            findings.add("label outside the vocabulary", "fault", where, f"{item.id}: {item.label}")
    elif item.answers and not any(answer in vocabulary for answer in item.answers):
        findings.add("answers outside the vocabulary", "fault", where, f"{item.id}: {', '.join(item.answers[:3])}")
