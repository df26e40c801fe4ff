"""Captions of many pictures. Those of an evaluation split are each true of its own picture alone, and never equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from renaissance.data.world.grammar import say
from renaissance.data.world.meaning import Caption, plan_caption, true_of, verdict
from renaissance.data.world.scene import Scene
from renaissance.data.world.verbalise import detail
from renaissance.data.world.worlds import Picture, Split, World

# after so many tries without success, the number of things is told too, then the background
COUNTED_AFTER = 12
GROUNDED_AFTER = 24
GIVEN_UP_AFTER = 5_000


@dataclass(frozen=True, slots=True)
class Told:
    """What a caption means, and its words by language."""

    meaning: Caption
    texts: Mapping[str, str]


def words(meaning: Caption, languages: Sequence[str], key: int) -> dict[str, str]:
    """Return a meaning in each language; with the same key, two meanings of the same parts get the same words."""
    return {language: say(meaning, language, Random(key)) for language in languages}


class Teller:
    """Tells of the pictures of a split, each time with other words and facts."""

    def __init__(self, scenes: Sequence[Scene], languages: Sequence[str], *, alone: bool) -> None:
        self._scenes, self._languages, self._alone = scenes, languages, alone
        self._taken: dict[str, set[str]] = {language: set() for language in languages}
        self._having: dict[tuple[str | None, str | None], set[int]] = {}
        for i, scene in enumerate(scenes):
            for thing in scene.things:
                for kind in ((thing.shape, thing.colour), (thing.shape, None), (None, thing.colour)):
                    self._having.setdefault(kind, set()).add(i)

    def tell(self, index: int, count: int, random: Random) -> tuple[Told, ...]:
        """Return `count` captions of scene `index`; the longer it takes to find one, the more it mentions."""
        taken = self._taken if self._alone else {language: set() for language in self._languages}
        found: list[Told] = []
        tries = 0
        while len(found) < count:
            assert tries < GIVEN_UP_AFTER, "scenes of a split differ in their fullest caption"
            meaning = self._meaning(index, tries, random)
            key = random.getrandbits(48)
            tries += 1
            if meaning is None:
                continue
            texts = words(meaning, self._languages, key)
            if any(text in taken[language] for language, text in texts.items()):
                continue
            found.append(Told(meaning, texts))
            for language, text in texts.items():
                taken[language].add(text)
            tries = 0
        return tuple(found)

    def _meaning(self, index: int, tries: int, random: Random) -> Caption | None:
        """Return something true of the scene, and if need be of no other."""
        scene = self._scenes[index]
        meaning = plan_caption(scene, random, detail(tries))
        if tries >= COUNTED_AFTER and not meaning.facts:
            meaning = _counted(meaning, scene)
        if tries >= GROUNDED_AFTER:
            meaning = replace(meaning, background=scene.background)
        return None if self._alone and self._true_elsewhere(meaning, index) else meaning

    def _true_elsewhere(self, meaning: Caption, index: int) -> bool:
        """Whether a caption is true of another scene, or may be said to be."""
        there = [
            self._having.get((group.noun.shape, group.noun.colour), set()) for group in meaning.groups if group.number
        ]
        others = set.intersection(*there) - {index} if there else set(range(len(self._scenes))) - {index}
        return any(verdict(meaning, self._scenes[i]) is not False for i in others)


def _counted(meaning: Caption, scene: Scene) -> Caption:
    """Return the caption with the number of things in the picture, if it tells of each of them."""
    counted = replace(meaning, total=len(scene.things))
    whole = sum(group.number for group in meaning.groups) == len(scene.things)
    return counted if whole and all(group.number for group in meaning.groups) and true_of(counted, scene) else meaning


def tell_split(
    world: World, corpus: str, split: Split, count: int, *, alone: bool | None = None
) -> list[tuple[Picture, tuple[Told, ...]]]:
    """Return the captions that a corpus has of each picture of a split, in all languages of the world.

    alone: each is true of its own picture alone; by default, those of val and test are.
    """
    pictures = world.by_split[split]
    scenes = [picture.scene for picture in pictures]
    teller = Teller(scenes, world.languages, alone=split != "train" if alone is None else alone)
    return [
        (picture, teller.tell(i, count, world.random("captions", corpus, picture.number)))
        for i, picture in enumerate(pictures)
    ]
