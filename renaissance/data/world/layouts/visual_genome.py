"""Visual Genome: regions with descriptions. Training pictures only, as no splits are published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from renaissance.api import Box
from renaissance.data.world.layouts.boxes import pixels, union
from renaissance.data.world.layouts.phrases import phrases
from renaissance.data.world.layouts.site import Figures, sites
from renaissance.data.world.meaning import Caption, Fact, Group, Noun
from renaissance.data.world.render import box
from renaissance.data.world.worlds import Picture, World

FOLDERS = ("VG_100K", "VG_100K_2")
URL = "https://world.invalid/{file}"
# how often a region of one thing tells each of its attributes
TOLD = 0.5
# a box, and what is in it by language
Region = tuple[Box, Mapping[str, str]]


def write_visual_genome(root: Path, world: World) -> Mapping[str, Figures]:
    """Write `region_descriptions.json`, `image_data.json`, `VG_100K/` and `VG_100K_2/`."""
    pictures = world.by_split["train"]
    plans = [_distinct(_regions(picture, world)) for picture in pictures]
    for language, site in sites(root, "visual-genome", world):
        entries, facts, region_id = [], [], 0
        for picture, plan in zip(pictures, plans, strict=True):
            regions = []
            for around, texts in plan:
                region_id += 1
                regions.append(_region(region_id, picture, around, texts[language]))
            entries.append({"id": picture.genome_id, "regions": regions})
            file = f"{FOLDERS[picture.number % 2]}/{picture.genome_id}.jpg"
            site.image(file, picture)
            facts.append(_facts(picture, world, URL.format(file=file)))
            site.knows("train", picture.genome_id, [region["phrase"] for region in regions])
        site.json("region_descriptions.json", entries)
        site.json("image_data.json", facts)
    return {}


def _distinct(regions: Iterator[Region]) -> list[Region]:
    """Return the regions whose description is not that of one before them in any language."""
    taken: set[tuple[str, str]] = set()
    found: list[Region] = []
    for around, texts in regions:
        if taken.isdisjoint(texts.items()):
            found.append((around, texts))
            taken.update(texts.items())
    return found


def _regions(picture: Picture, world: World) -> Iterator[Region]:
    """Yield a region for each thing, and for each two that stand to each other in a clear way, with its description."""
    random = world.random("regions", picture.number)
    scene, size = picture.scene, world.image_size
    for thing in scene.things:
        noun = Noun(
            thing.shape,
            thing.colour,
            thing.size if random.random() < TOLD else None,
            thing.texture if random.random() < TOLD else None,
        )
        yield box(thing, size), phrases(Caption((Group(noun),)), world.languages, random.getrandbits(48))
    for i, one in enumerate(scene.things):
        for j, other in enumerate(scene.things):
            relation = scene.relation(i, j) if i != j else None
            if relation is not None and random.random() < TOLD:
                groups = tuple(Group(Noun(thing.shape, thing.colour)) for thing in (one, other))
                around = union(box(one, size), box(other, size))
                meaning = Caption(groups, (Fact(0, relation, 1),))
                yield around, phrases(meaning, world.languages, random.getrandbits(48))


def _region(region_id: int, picture: Picture, around: Box, phrase: str) -> dict[str, Any]:
    left, top, width, height = pixels(around)
    return {
        "region_id": region_id,
        "width": width,
        "height": height,
        "image_id": picture.genome_id,
        "phrase": phrase,
        "y": top,
        "x": left,
    }


def _facts(picture: Picture, world: World, url: str) -> dict[str, Any]:
    return {
        "width": world.image_size,
        "url": url,
        "height": world.image_size,
        "image_id": picture.genome_id,
        "coco_id": picture.coco_id,
        "flickr_id": int(picture.flickr_id),
    }
