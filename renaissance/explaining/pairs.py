"""What a model is explained on: pairs of a picture and a text, drawn from the generated world or from prepared data.

Scenes of the world are those of its test split, whatever the world: what they are made of occurs in no training split.
Pictures are drawn at 128 pixels. Boxes are left, top, width and height as shares of the picture's side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from PIL.Image import Image

from renaissance.api import Box
from renaissance.data.decode import open_image
from renaissance.data.hashing import stable_hash
from renaissance.data.load import captioned
from renaissance.data.prepared import Prepared
from renaissance.data.world.grammar import say
from renaissance.data.world.meaning import Caption, Group, Noun, those
from renaissance.data.world.references import Reference, say_reference
from renaissance.data.world.render import box, render
from renaissance.data.world.scene import Scene, draw_scene
from renaissance.data.world.verbalise import captions
from renaissance.data.world.worlds import IMAGE_SIZE, split_of
from renaissance.errors import DataError
from renaissance.spec import shown

# of several splits of prepared data the first that there is
SPLITS = ("test", "val", "validation")


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture with a text that belongs to it; pairs of one picture have the same `image_id`."""

    image_id: str
    picture: Image
    text: str


@dataclass(frozen=True, slots=True)
class Pointed:
    """A pair whose text names one thing of several: the box of that thing, and those of the others."""

    pair: Pair
    named: Box
    others: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Pictures of one thing each with texts that name its colour and shape, and by target the label of each picture."""

    pictures: Sequence[Image]
    texts: Sequence[str]
    labels: Mapping[str, Sequence[str]]


def world_pairs(count: int, seed: int) -> list[Pair]:
    """Return pictures of drawn scenes, each with a caption that no other one has."""
    taken: set[str] = set()
    found = []
    for number, (scene, random) in zip(range(count), _scenes("pairs", seed), strict=False):
        found.append(Pair(f"scene-{number}", render(scene, IMAGE_SIZE), captions(scene, 1, random, taken)[0]))
    return found


def world_pointed(count: int, seed: int) -> list[Pointed]:
    """Return pictures of at least two things, each with a caption that names one of them alone."""
    found: list[Pointed] = []
    for scene, random in _scenes("pointing", seed):
        if len(found) == count:
            break
        named = _naming(scene, random)
        if named is not None:
            text, thing = named
            boxes = [_share(scene, index) for index in range(len(scene.things))]
            others = tuple(place for index, place in enumerate(boxes) if index != thing)
            pair = Pair(f"scene-{len(found)}", render(scene, IMAGE_SIZE), text)
            found.append(Pointed(pair, boxes[thing], others))
    return found


def _naming(scene: Scene, random: Random) -> tuple[str, int] | None:
    """Return a caption of one thing of several, and which it is; None where things are alike, or lie in each other."""
    count = len(scene.things)
    if count < 2 or any(scene.relation(i, j) in ("inside", "around") for i in range(count) for j in range(i)):
        return None
    index = random.randrange(count)
    noun = Noun(scene.things[index].shape, scene.things[index].colour)
    if those(noun, scene) != [index]:
        return None
    return say(Caption((Group(noun),)), "en", random), index


def _share(scene: Scene, index: int) -> Box:
    left, top, width, height = box(scene.things[index], IMAGE_SIZE)
    return left / IMAGE_SIZE, top / IMAGE_SIZE, width / IMAGE_SIZE, height / IMAGE_SIZE


def world_labelled(count: int, seed: int) -> Labelled:
    """Return pictures of one thing each, what is to be seen in them, and texts such as "the red circle"."""
    scenes: list[Scene] = []
    texts: list[str] = []
    for scene, random in _scenes("probes", seed, split=None):
        if len(scenes) == count:
            break
        if len(scene.things) == 1:
            thing = scene.things[0]
            scenes.append(scene)
            texts.append(say_reference(Reference(Noun(thing.shape, thing.colour)), "en", random))
    labels = {name: [getattr(scene.things[0], name) for scene in scenes] for name in ("shape", "colour", "size")}
    return Labelled(
        [render(scene, IMAGE_SIZE) for scene in scenes],
        texts,
        {**labels, "background": [scene.background for scene in scenes]},
    )


def _scenes(purpose: str, seed: int, *, split: str | None = "test") -> Iterator[tuple[Scene, Random]]:
    """Yield scenes without end, each with its own source of randomness."""
    random = Random(stable_hash("explain", purpose, seed))
    number = 0
    while True:
        scene = draw_scene(random)
        if split is None or split_of(scene) == split:
            yield scene, Random(stable_hash("explain texts", purpose, seed, number))
            number += 1


def prepared_pairs(folder: Path, count: int, seed: int, split: str | None = None) -> tuple[str, list[Pair]]:
    """Return at most so many pairs of prepared data, each of another image, and their split: a held-out one first.

    Raises:
        DataError: the folder holds no prepared data, or its items are not one image with texts.
        SampleError: an image cannot be read.
    """
    prepared = Prepared(folder)
    chosen = split or next((name for name in SPLITS if name in prepared.splits), prepared.splits[0])
    if chosen not in prepared.splits:
        there = ", ".join(prepared.splits)
        raise DataError(f"'{folder}' has no split '{shown(chosen)}'; it has: {there}.")
    items: dict[str, Any] = {}
    for item in prepared.items(chosen):
        record = captioned(item)
        items.setdefault(record.image.name, record)
    order = sorted(items, key=lambda name: stable_hash("explain", seed, name))[:count]
    found = [
        Pair(name, open_image(items[name].image.read(), name=items[name].row), items[name].captions[0])
        for name in order
    ]
    return chosen, found
