"""RefCOCO, RefCOCO+ and RefCOCOg: expressions that refer to one of the things in a picture of two or three."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from renaissance.api import Box
from renaissance.data.world.layouts.boxes import overlap
from renaissance.data.world.layouts.site import Figure, Figures, Site, share, sites
from renaissance.data.world.references import Reference, plan_reference, say_reference
from renaissance.data.world.render import box, outline
from renaissance.data.world.scene import SHAPES
from renaissance.data.world.worlds import SPLITS, Picture, World

SENTENCES = 3
TRIES = 8
# how near a detected box must come to the thing
NEAR = 0.6


@dataclass(frozen=True, slots=True)
class Style:
    """How a corpus refers. maker: whose splits it has. located: it says where things are; long: and says more."""

    layout: str
    maker: str
    located: bool
    long: bool


@dataclass(frozen=True, slots=True)
class Referred:
    """A thing of a picture with the expressions that mean it alone, by language."""

    picture: Picture
    index: int
    split: str
    sentences: tuple[Mapping[str, str], ...]


def write_refcoco(root: Path, world: World) -> Mapping[str, Figures]:
    """Write `instances.json`, `refs(unc).p` and `.json`, `detections.json` and `train2014/`."""
    return _write(root, world, Style("refcoco", "unc", located=True, long=False))


def write_refcoco_plus(root: Path, world: World) -> Mapping[str, Figures]:
    """Write the same files, with expressions that do not say where a thing is."""
    return _write(root, world, Style("refcoco+", "unc", located=False, long=False))


def write_refcocog(root: Path, world: World) -> Mapping[str, Figures]:
    """Write the same files with `refs(umd)` and longer expressions."""
    return _write(root, world, Style("refcocog", "umd", located=True, long=True))


def _write(root: Path, world: World, style: Style) -> Mapping[str, Figures]:
    referred = [found for split in SPLITS for found in _all_referred(world, style, world.by_split[split])]
    pictures = list({found.picture.number: found.picture for found in referred}.values())
    instances, detections = _instances(pictures, world), list(_detections(pictures, world, style))
    figures: dict[str, Figures] = {}
    for language, site in sites(root, style.layout, world):
        site.json("instances.json", instances)
        site.json("detections.json", detections)
        refs = list(_refs(site, referred, language))
        site.json(f"refs({style.maker}).json", refs)
        # read back from JSON: which strings are one object would otherwise depend on the process
        plain = json.loads(json.dumps(refs))
        site.place(f"refs({style.maker}).p").write_bytes(pickle.dumps(plain, protocol=2))
        for picture in pictures:
            site.image(f"train2014/{_file(picture)}", picture)
        splits = sorted({found.split for found in referred} - {"train"})
        figures[site.name] = {split: _figure([found for found in referred if found.split == split]) for split in splits}
    return figures


def _file(picture: Picture) -> str:
    return f"COCO_train2014_{picture.coco_id:012d}.jpg"


def _ann_id(picture: Picture, index: int) -> int:
    return picture.coco_id * 10 + index


def _all_referred(world: World, style: Style, pictures: tuple[Picture, ...]) -> Iterator[Referred]:
    for picture in pictures:
        if len(picture.scene.things) < 2:
            continue  # nothing to choose from
        random = world.random("references", style.layout, picture.number)
        for index in range(len(picture.scene.things)):
            sentences = tuple(_sentences(picture, index, style, world.languages, random))
            if sentences:
                yield Referred(picture, index, _split(picture, style), sentences)


def _split(picture: Picture, style: Style) -> str:
    if picture.split != "test" or style.maker == "umd":
        return picture.split
    return "testA" if picture.number % 2 else "testB"


def _sentences(
    picture: Picture, index: int, style: Style, languages: tuple[str, ...], random: Random
) -> Iterator[Mapping[str, str]]:
    """Yield up to three expressions that differ in each language."""
    taken: set[tuple[str, str]] = set()
    found = 0
    for _ in range(TRIES):
        reference = _reference(picture, index, style, random)
        key = random.getrandbits(48)
        if reference is None or found == SENTENCES:
            return
        texts = {language: say_reference(reference, language, Random(key)) for language in languages}
        if taken.isdisjoint(texts.items()):
            taken.update(texts.items())
            found += 1
            yield texts


def _reference(picture: Picture, index: int, style: Style, random: Random) -> Reference | None:
    if not style.long:
        return plan_reference(picture.scene, index, random, located=style.located)
    drawn = [plan_reference(picture.scene, index, random) for _ in range(3)]
    return max((reference for reference in drawn if reference is not None), key=_length, default=None)


def _length(reference: Reference) -> int:
    nouns = (reference.noun, reference.other)
    said = [getattr(noun, name) for noun in nouns if noun for name in ("shape", "colour", "size", "texture")]
    return len([value for value in (*said, reference.place, reference.relation, reference.most) if value])


def _refs(site: Site, referred: list[Referred], language: str) -> Iterator[dict[str, Any]]:
    sent_id = 0
    for ref_id, found in enumerate(referred):
        sentences = []
        for texts in found.sentences:
            text = texts[language]
            sentences.append({"tokens": text.lower().split(), "raw": text, "sent_id": sent_id, "sent": text.lower()})
            site.knows(found.split, sent_id, found.index)
            sent_id += 1
        annotation = _ann_id(found.picture, found.index)
        yield {
            "sent_ids": [sentence["sent_id"] for sentence in sentences],
            "file_name": _file(found.picture).replace(".jpg", f"_{annotation}.jpg"),
            "ann_id": annotation,
            "ref_id": ref_id,
            "image_id": found.picture.coco_id,
            "split": found.split,
            "sentences": sentences,
            "category_id": _category(found.picture, found.index),
        }


def _category(picture: Picture, index: int) -> int:
    return _number(picture.scene.things[index].shape)


def _number(shape: str) -> int:
    """Return the id of a category, in every world the same."""
    return SHAPES.index(shape) + 1


def _figure(referred: list[Referred]) -> Figure:
    """Return the score of a choice by lot among the things of each picture."""
    counts = [len(found.picture.scene.things) for found in referred for _ in found.sentences]
    chance = share(sum(1 / count for count in counts), len(counts))
    return Figure("accuracy of the choice among boxes", len(counts), chance, chance, "draws lots")


def _instances(pictures: list[Picture], world: World) -> dict[str, Any]:
    size = world.image_size
    images = [
        {
            "license": 1, "file_name": _file(picture), "coco_url": f"https://world.invalid/{_file(picture)}",
            "height": size, "width": size, "date_captured": "2014-01-01 00:00:00",
            "flickr_url": f"https://world.invalid/{picture.flickr_id}", "id": picture.coco_id,
        }
        for picture in pictures
    ]  # fmt: skip
    annotations = [_annotation(picture, index, size) for picture in pictures for index in _indices(picture)]
    categories = [{"supercategory": "shape", "id": i, "name": name} for i, name in enumerate(SHAPES, start=1)]
    licenses = [{"url": "https://creativecommons.org/publicdomain/zero/1.0/", "id": 1, "name": "CC0 1.0"}]
    info = {"description": "A generated world.", "version": "1.0", "year": 2014}
    return {
        "info": info, "images": images, "licenses": licenses, "annotations": annotations, "categories": categories,
    }  # fmt: skip


def _indices(picture: Picture) -> range:
    return range(len(picture.scene.things))


def _annotation(picture: Picture, index: int, size: int) -> dict[str, Any]:
    corners = outline(picture.scene.things[index], size)
    return {
        "segmentation": [[round(value, 2) for corner in corners for value in corner]],
        "area": round(_area(corners), 2),
        "iscrowd": 0,
        "image_id": picture.coco_id,
        "bbox": list(box(picture.scene.things[index], size)),
        "category_id": _category(picture, index),
        "id": _ann_id(picture, index),
    }


def _area(corners: list[tuple[float, float]]) -> float:
    following = [*corners[1:], corners[0]]
    return abs(sum(a * d - b * c for (a, b), (c, d) in zip(corners, following, strict=True))) / 2


def _detections(pictures: list[Picture], world: World, style: Style) -> Iterator[dict[str, Any]]:
    """Yield a box near each thing, and one near nothing a picture, as a detector would."""
    for picture in pictures:
        random = world.random("detections", style.layout, picture.number)
        for index in _indices(picture):
            around = _near(box(picture.scene.things[index], world.image_size), random)
            yield _detected(picture, index, around, _category(picture, index), random.uniform(0.7, 0.99))
        side = world.image_size / 5
        spot = random.uniform(0, 4 * side), random.uniform(0, 4 * side), side, side
        yield _detected(picture, 9, spot, _number(random.choice(world.kinds.shapes)), random.uniform(0.05, 0.3))


def _near(exact: Box, random: Random) -> Box:
    """Return a box that overlaps much with the exact one."""
    while True:
        left, top, width, height = (
            value + length * random.uniform(-0.12, 0.12)
            for value, length in zip(exact, (exact[2], exact[3], exact[2], exact[3]), strict=True)
        )
        if overlap((left, top, width, height), exact) >= NEAR:
            return left, top, width, height


def _detected(picture: Picture, index: int, around: Box, category: int, score: float) -> dict[str, Any]:
    number = _ann_id(picture, index)
    return {
        "det_id": number,
        "h5_id": number,
        "box": [round(value, 2) for value in around],
        "image_id": picture.coco_id,
        "category_id": category,
        "category_name": SHAPES[category - 1],
        "score": round(score, 4),
    }
