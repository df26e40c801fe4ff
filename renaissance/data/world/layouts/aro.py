"""ARO: relations and attributes of two things, against what comes of exchanging them; and captions for word order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from renaissance.api import Box
from renaissance.data.readers.aro import OWN
from renaissance.data.world.layouts.boxes import grown, pixels, union
from renaissance.data.world.layouts.captions import CAPTIONS, Pages, coco_file, flickr_file
from renaissance.data.world.layouts.phrases import phrases
from renaissance.data.world.layouts.site import Figures, Site, lots, shorter, sites
from renaissance.data.world.meaning import Caption, Fact, Group, Noun, verdict
from renaissance.data.world.render import box
from renaissance.data.world.scene import OPPOSITE, Relation
from renaissance.data.world.telling import tell_split
from renaissance.data.world.worlds import Picture, World

# as the published file names them; "around" is one of the symmetric ones there, which do not count
RELATIONS: Mapping[Relation, str] = {
    "left of": "to the left of",
    "right of": "to the right of",
    "above": "above",
    "below": "below",
    "inside": "inside",
}
MARGIN = 2.0


@dataclass(frozen=True, slots=True)
class Test:
    """A true and a false caption of a part of a picture. facts: what the published file has of it besides."""

    picture: Picture
    around: Box
    true: Mapping[str, str]
    false: Mapping[str, str]
    facts: Mapping[str, Any]


def write_aro(root: Path, world: World) -> Mapping[str, Figures]:
    """Write the two files on Visual Genome with `images/`, and the two of word order with images of COCO and Flickr."""
    pictures = world.by_split["test"]
    relations = [test for picture in pictures for test in _relations(picture, world)]
    attributes = [test for picture in pictures for test in _attributes(picture, world)]
    orders = {name: tell_split(world, name, "test", CAPTIONS) for name in ("coco", "flickr30k")}
    figures: dict[str, Figures] = {}
    for language, site in sites(root, "aro", world):
        _write_tests(site, "relation", relations, language)
        _write_tests(site, "attribution", attributes, language)
        for picture in pictures:
            site.image(f"images/{picture.genome_id}.jpg", picture)
        _write_order(site, "coco", orders["coco"], language)
        _write_order(site, "flickr30k", orders["flickr30k"], language)
        figures[site.name] = {
            "relation": shorter([(test.true[language], test.false[language]) for test in relations]),
            "attribution": shorter([(test.true[language], test.false[language]) for test in attributes]),
            f"coco-order{OWN}": lots("accuracy", CAPTIONS * len(pictures), CAPTIONS),
            f"flickr30k-order{OWN}": lots("accuracy", CAPTIONS * len(pictures), CAPTIONS),
        }
    return figures


def _write_tests(site: Site, subset: str, tests: list[Test], language: str) -> None:
    entries = []
    for number, test in enumerate(tests):
        left, top, width, height = pixels(test.around)
        true, false = test.true[language], test.false[language]
        entries.append(
            {
                "image_id": test.picture.genome_id,
                "image_path": f"{test.picture.genome_id}.jpg",
                "bbox_x": left,
                "bbox_y": top,
                "bbox_w": width,
                "bbox_h": height,
                **test.facts,
                "true_caption": true,
                "false_caption": false,
            }
        )
        site.knows("test", f"{subset}-{number}", true)
    site.json(f"visual_genome_{subset}.json", entries)


def _write_order(site: Site, corpus: str, pages: Pages, language: str) -> None:
    file = coco_file if corpus == "coco" else flickr_file
    name = "coco_karpathy_test.json" if corpus == "coco" else "flickr30k_test.json"
    entries = []
    for number, (picture, told) in enumerate(pages):
        texts = [each.texts[language] for each in told]
        site.image(file(picture), picture)
        entries.append({"image": file(picture), "caption": texts})
        for i, text in enumerate(texts):
            site.knows("test", f"{corpus}-order-{number}-{i}", text)
    site.json(name, entries)


def _around(picture: Picture, i: int, j: int, world: World) -> Box:
    size = world.image_size
    both = union(*(box(picture.scene.things[k], size) for k in (i, j)))
    return grown(both, MARGIN, size)


def _relations(picture: Picture, world: World) -> Iterator[Test]:
    """Yield each two things that stand to each other in a clear way; false is that it is the other way round."""
    random = world.random("relations", picture.number)
    scene = picture.scene
    for i in range(len(scene.things)):
        for j in range(i):
            a, b = (i, j) if random.random() < 0.5 else (j, i)
            relation = scene.relation(a, b)
            if relation == "around":
                a, b, relation = b, a, OPPOSITE[relation]
            if relation is None or relation not in RELATIONS:
                continue
            nouns = [Noun(scene.things[k].shape, scene.things[k].colour) for k in (a, b)]
            facts = (Fact(0, relation, 1),)
            true = Caption(tuple(Group(noun) for noun in nouns), facts)
            false = Caption(tuple(Group(noun) for noun in reversed(nouns)), facts)
            known = {
                "relation_name": RELATIONS[relation], "subj_name": nouns[0].shape, "obj_name": nouns[1].shape,
            }  # fmt: skip
            yield from _test(picture, _around(picture, a, b, world), true, false, known, world, random)


def _attributes(picture: Picture, world: World) -> Iterator[Test]:
    """Yield each two things that differ in shape and in an attribute; false is that each has the other's attribute."""
    random = world.random("attributes", picture.number)
    scene = picture.scene
    for i in range(len(scene.things)):
        for j in range(i):
            things = [scene.things[k] for k in ((i, j) if random.random() < 0.5 else (j, i))]
            for name in ("colour", "size", "texture"):
                values = [str(getattr(thing, name)) for thing in things]
                if values[0] == values[1] or things[0].shape == things[1].shape:
                    continue
                nouns = [Noun(thing.shape) for thing in things]
                true, false = (
                    Caption(
                        tuple(Group(replace(noun, **{name: value})) for noun, value in zip(nouns, said, strict=True))
                    )
                    for said in (values, values[::-1])
                )
                known = {"attributes": values, "obj1_name": things[0].shape, "obj2_name": things[1].shape}
                yield from _test(picture, _around(picture, i, j, world), true, false, known, world, random)


def _test(
    picture: Picture,
    around: Box,
    true: Caption,
    false: Caption,
    facts: Mapping[str, Any],
    world: World,
    random: Random,
) -> Iterator[Test]:
    """Yield a test if one caption is beyond doubt true and the other false, in other words in each language."""
    key = random.getrandbits(48)
    if verdict(true, picture.scene) is not True or verdict(false, picture.scene) is not False:
        return
    told, untrue = phrases(true, world.languages, key), phrases(false, world.languages, key)
    if all(told[language] != untrue[language] for language in world.languages):
        yield Test(picture, around, told, untrue, facts)
