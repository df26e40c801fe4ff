"""Expressions that refer to one thing of a scene, and the oracle of what an expression could mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random
from typing import Literal

from renaissance.data.world.grammar import Voice
from renaissance.data.world.languages.features import NounPhrase
from renaissance.data.world.meaning import Noun, those
from renaissance.data.world.scene import Relation, Scene

Direction = Literal["left", "right", "top", "bottom"]

# of two things of a kind, one is the leftmost if the other is so much further to the right
APART = 0.08


@dataclass(frozen=True, slots=True)
class Reference:
    """The one thing of a kind that lies in a place, stands so to the one thing of another kind, or is the leftmost."""

    noun: Noun
    place: str | None = None
    relation: Relation | None = None
    other: Noun | None = None
    most: Direction | None = None


def referred(reference: Reference, scene: Scene) -> list[int]:
    """Return the numbers of the things that a reference could mean: one, if it is a good one."""
    fitting = those(reference.noun, scene)
    if reference.place is not None:
        fitting = [i for i in fitting if scene.things[i].lies(reference.place) is not False]
    if reference.relation is not None and reference.other is not None:
        relation, others = reference.relation, those(reference.other, scene)
        fitting = [i for i in fitting if any(i != j and scene.stands(i, relation, j) is not False for j in others)]
    if reference.most is None or not fitting:
        return fitting
    reach = {i: _reach(scene, i, reference.most) for i in fitting}
    return [i for i in fitting if reach[i] > max(reach.values()) - APART]


def _reach(scene: Scene, i: int, direction: Direction) -> float:
    thing = scene.things[i]
    return {"left": -thing.x, "right": thing.x, "top": -thing.y, "bottom": thing.y}[direction]


def _clear(reference: Reference, scene: Scene, index: int) -> bool:
    """Whether a reference means this thing beyond doubt, and its other thing is one."""
    if referred(reference, scene) != [index]:
        return False
    if reference.place is not None and not scene.things[index].lies(reference.place):
        return False
    if reference.relation is None or reference.other is None:
        return True
    others = those(reference.other, scene)
    return len(others) == 1 and scene.stands(index, reference.relation, others[0]) is True


def _nouns(scene: Scene, index: int, unsaid: tuple[str, ...]) -> Iterator[Noun]:
    """Yield what a thing may be called, the shortest first."""
    thing = scene.things[index]
    names = [name for name in ("colour", "size", "texture") if name not in unsaid]
    for number in range(len(names) + 1):
        for chosen in combinations(names, number):
            values = {name: getattr(thing, name) for name in chosen}
            if "shape" not in unsaid:
                yield Noun(shape=thing.shape, **values)
            if chosen:
                yield Noun(**values)


def shortest_noun(scene: Scene, index: int, random: Random, unsaid: tuple[str, ...] = ()) -> Noun | None:
    """Return a noun of this thing alone, one of the shortest; None if it looks like another."""
    found = [noun for noun in _nouns(scene, index, unsaid) if those(noun, scene) == [index]]
    return random.choice(found[:3]) if found else None


def plan_reference(
    scene: Scene, index: int, random: Random, *, located: bool = True, unsaid: tuple[str, ...] = ()
) -> Reference | None:
    """Return a reference to this thing alone; None if there is none.

    located: it may say where the thing is. unsaid: the attributes that it does not mention.
    """
    noun = shortest_noun(scene, index, random, unsaid)
    if noun is not None and (not located or random.random() < 0.5):
        return Reference(noun)
    found = list(_located(scene, index, random, unsaid)) if located else []
    if found:
        return random.choice(found)
    return None if noun is None else Reference(noun)


def _located(scene: Scene, index: int, random: Random, unsaid: tuple[str, ...]) -> Iterator[Reference]:
    """Yield references by place, by relation to another thing, and by being the leftmost, each with a short noun."""
    thing = scene.things[index]
    shape = None if "shape" in unsaid else thing.shape
    for noun in (Noun(shape), Noun(shape, None if "colour" in unsaid else thing.colour)):
        options = [Reference(noun, place=thing.place)] if thing.place is not None else []
        for j in range(len(scene.things)):
            relation = scene.relation(index, j) if j != index else None
            other = shortest_noun(scene, j, random, unsaid=("size",)) if relation is not None else None
            if other is not None:
                options.append(Reference(noun, relation=relation, other=other))
        if len(those(noun, scene)) > 1:
            options += [replace(Reference(noun), most=side) for side in ("left", "right", "top", "bottom")]
        yield from (option for option in options if _clear(option, scene, index))


def refer(scene: Scene, index: int, random: Random, language: str, *, located: bool = True) -> str | None:
    """Return an expression that is true of this thing and of no other; None if nothing tells it from another.

    located: it may say where the thing is, absolutely or to another thing (RefCOCO); not so in RefCOCO+.
    """
    reference = plan_reference(scene, index, random, located=located)
    return None if reference is None else say_reference(reference, language, random)


def say_reference(reference: Reference, language: str, random: Random) -> str:
    """Return a reference in words: "the red circle to the left of the star"."""
    voice = Voice(language, random)
    return voice.finish(voice.fill("bare", x=phrase_of(reference, voice)))


def phrase_of(reference: Reference, voice: Voice) -> NounPhrase:
    """Return the definite noun phrase of a reference."""
    phrase = voice.phrase(reference.noun, "the")
    after = ""
    if reference.place is not None:
        after = voice.fill(f"at {reference.place}")
    elif reference.most is not None:
        after = voice.fill(f"most {reference.most}")
    elif reference.relation is not None and reference.other is not None:
        after = voice.fill(reference.relation, a=phrase, b=voice.phrase(reference.other, "the"))
    return replace(phrase, after=after)
