"""A world: scenes in splits that have nothing in common, from which every layout is written.

What a scene is made of (its background, and how often each shape, colour, size and texture occurs) decides its split.
So no scene of one split is in another, whatever the seed and the size; and two scenes that differ only in what belongs
to what, as Winoground's do, are in the same one.

A world may have a compositional split beside them: of scenes of the test split with a shape in a colour that no other
scene of the world has, though others have the shape, and others the colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Literal

from renaissance.data.hashing import stable_hash
from renaissance.data.world.kinds import check_compositional
from renaissance.data.world.languages import find_language
from renaissance.data.world.scene import ALL, Kinds, Scene, draw_scene, is_compositional
from renaissance.errors import SpecError

Split = Literal["train", "val", "test", "test_compositional"]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
COMPOSITIONAL: Split = "test_compositional"
IMAGE_SIZE = 128
SMALLEST = 40
LARGEST = 100_000
# the percentage of the val split, and of the test split
HELD_OUT = 15
# every so many-th training picture is one of COCO's restval, which lie in the folder of val2014
RESTVAL = 10
# draws in a row that bring no new scene, after which a world is said to have no more
EXHAUSTED = 20_000


@dataclass(frozen=True, slots=True)
class Picture:
    """A scene with its number, from 1, and split. Corpora that share images share its ids."""

    number: int
    split: Split
    scene: Scene

    @property
    def coco_id(self) -> int:
        """Its id in COCO, VQAv2, RefCOCO and SugarCrepe."""
        return 100_000 + self.number

    @property
    def genome_id(self) -> int:
        """Its id in Visual Genome, GQA and ARO."""
        return 2_300_000 + self.number

    @property
    def flickr_id(self) -> str:
        """Its id in Flickr30k and SNLI-VE."""
        return str(1_000_000_000 + self.number)

    @property
    def coco_split(self) -> str:
        """Its split in the file of Karpathy and Fei-Fei."""
        return "restval" if self.split == "train" and self.number % RESTVAL == 0 else self.split


@dataclass(frozen=True)
class World:
    """Pictures, training ones first, of what they are drawn, and the languages in which they are told of."""

    seed: int
    image_size: int
    languages: tuple[str, ...]
    pictures: tuple[Picture, ...]
    kinds: Kinds = ALL
    compositional: bool = False

    @property
    def identity(self) -> str:
        """What tells its pictures from those of other worlds, which have the same ids."""
        kinds = [sorted(values) for values in self.kinds.values.values()]
        drawn = (len(self.pictures), self.seed, self.image_size, kinds, self.kinds.backgrounds, self.compositional)
        return f"{stable_hash('which world', *drawn):016x}"

    @property
    def splits(self) -> tuple[Split, ...]:
        """Its splits."""
        return (*SPLITS, COMPOSITIONAL) if self.compositional else SPLITS

    @cached_property
    def by_split(self) -> dict[Split, tuple[Picture, ...]]:
        """The pictures of each split."""
        return {split: tuple(picture for picture in self.pictures if picture.split == split) for split in self.splits}

    def random(self, *key: object) -> Random:
        """Return the source of randomness for one purpose: nothing else draws from it."""
        return Random(stable_hash("world", self.seed, *key))


def split_of(scene: Scene) -> Split:
    """Return the split to which a scene belongs in every world."""
    parts = [sorted(getattr(thing, name) for thing in scene.things) for name in ("shape", "colour", "size", "texture")]
    share = stable_hash("split", scene.background, parts) % 100
    return "train" if share >= 2 * HELD_OUT else "val" if share < HELD_OUT else "test"


def draw_world(
    size: int,
    seed: int,
    languages: Sequence[str],
    image_size: int = IMAGE_SIZE,
    *,
    kinds: Kinds = ALL,
    compositional: bool = False,
) -> World:
    """Draw a world of `size` scenes, 15% of them for each split but that for training.

    No two scenes of val, and no two of test, have the same background and things that look the same.

    Raises:
        SpecError: the size, a language, or the size of the pictures cannot be, or there are too few kinds.
    """
    _check(size, languages, image_size)
    if compositional:
        check_compositional(kinds)
    held = round(size * HELD_OUT / 100)
    drawn = World(seed, image_size, tuple(languages), (), kinds, compositional)
    pictures: list[Picture] = []
    for split in drawn.splits:
        count = held if split != "train" else size - held * (len(drawn.splits) - 1)
        for scene in _scenes(drawn, split, count):
            pictures.append(Picture(len(pictures) + 1, split, scene))
    return replace(drawn, pictures=tuple(pictures))


def _check(size: int, languages: Sequence[str], image_size: int) -> None:
    if not SMALLEST <= size <= LARGEST:
        raise SpecError(f"A world has {SMALLEST} to {LARGEST:,} scenes, not {size:,}. Choose another --size.")
    if not 16 <= image_size <= 1024:
        raise SpecError(f"Pictures have 16 to 1024 pixels a side, not {image_size}. Choose another --image-size.")
    if not languages or len(set(languages)) < len(languages):
        raise SpecError("Name at least one language, and none twice: --languages en,de,es.")
    for language in languages:
        find_language(language)


def _scenes(world: World, split: Split, count: int) -> list[Scene]:
    random = Random(stable_hash("world scenes", world.seed, split))
    kinds = replace(world.kinds, withheld=world.compositional and split != COMPOSITIONAL)
    seen: set[object] = set()
    found: list[Scene] = []
    missed = 0
    while len(found) < count:
        if missed == EXHAUSTED:
            raise SpecError(
                f"These kinds of things make no {count} different scenes for the split '{split}', but {len(found)}. "
                "Choose a smaller --size, or name more --shapes, --colours, --textures or --backgrounds."
            )
        missed += 1
        scene = draw_scene(random, kinds)
        if not _belongs(scene, split, world):
            continue
        looks = scene.background, tuple(sorted(thing.looks for thing in scene.things))
        if split == "train" or looks not in seen:
            seen.add(looks)
            found.append(scene)
            missed = 0
    return found


def _belongs(scene: Scene, split: Split, world: World) -> bool:
    if split_of(scene) != ("test" if split == COMPOSITIONAL else split):
        return False
    if not world.compositional:
        return True
    return any(is_compositional(thing.shape, thing.colour) for thing in scene.things) == (split == COMPOSITIONAL)
