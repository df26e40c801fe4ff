"""Captions of scenes: each true, each with other facts and other words."""

from __future__ import annotations

from random import Random

from renaissance.data.world.grammar import say
from renaissance.data.world.meaning import plan_caption
from renaissance.data.world.scene import Scene

DETAIL = 0.25
TRIES = 30


def detail(tries: int) -> float:
    """Return how much of a scene a caption tells after so many that were taken already, up to 1: all of it."""
    return min(1.0, DETAIL + tries / TRIES)


def captions(
    scene: Scene, count: int, random: Random, taken: set[str] | None = None, *, language: str = "en"
) -> tuple[str, ...]:
    """Return `count` different captions, none of them in `taken`, to which they are added.

    The longer it takes to find one that is free, the more facts a caption mentions.

    Raises:
        SpecError: there is no grammar of this language.
    """
    taken = set() if taken is None else taken
    found: list[str] = []
    tries = 0
    while len(found) < count:
        text = say(plan_caption(scene, random, detail(tries)), language, random)
        tries += 1
        if text not in taken and text not in found:
            found.append(text)
            tries = 0
    taken.update(found)
    return tuple(found)
