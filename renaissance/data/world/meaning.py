"""What can be said of a scene, as data, before any words; what is true of it; and what is nearly so.

The oracle reads the scene graph alone. It knows three verdicts: True, False, and None where people could argue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from random import Random
from typing import Literal

from renaissance.data.world.scene import OPPOSITE, PLACES, Kinds, Relation, Scene, Thing

Comparison = Literal["larger", "smaller"]
Kind = Literal[
    "add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj", "order"
]  # SugarCrepe's seven, and the same words in another order

# how often a caption compares sizes, and how often it says what is not there
COMPARED_SHARE = 0.06
ABSENT_SHARE = 0.04


@dataclass(frozen=True, slots=True)
class Noun:
    """A kind of things; what is None is not said."""

    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    texture: str | None = None

    def fits(self, thing: Thing) -> bool:
        """Return whether a thing is of this kind."""
        return (
            self.shape in (None, thing.shape)
            and self.colour in (None, thing.colour)
            and self.size in (None, thing.size)
            and self.texture in (None, thing.texture)
        )


@dataclass(frozen=True, slots=True)
class Group:
    """One thing of a kind, perhaps where it is; or none (0), or exactly two or three of them."""

    noun: Noun
    number: int = 1
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Fact:
    """How one of a caption's things stands to another, by their numbers in the caption."""

    subject: int
    relation: Relation | Comparison
    object: int


@dataclass(frozen=True, slots=True)
class Caption:
    """Different things, how they stand to each other, the background, and how many things there are in all."""

    groups: tuple[Group, ...]
    facts: tuple[Fact, ...] = ()
    background: str | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """There are exactly so many things of a kind."""

    noun: Noun
    number: int


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no thing of a kind."""

    noun: Noun


Meaning = Caption | Count | Absent


@dataclass(frozen=True, slots=True)
class Distortion:
    """A meaning with one thing changed, false of the scene."""

    kind: Kind
    meaning: Caption


def true_of(meaning: Meaning, scene: Scene) -> bool:
    """Return whether a meaning is beyond doubt true of a scene."""
    return verdict(meaning, scene) is True


def verdict(meaning: Meaning, scene: Scene) -> bool | None:
    """Return whether a meaning is true of a scene; None where it could be argued."""
    match meaning:
        case Count(noun, number):
            return len(those(noun, scene)) == number
        case Absent(noun):
            return not those(noun, scene)
        case Caption():
            return _verdict_of_caption(meaning, scene)


def those(noun: Noun, scene: Scene) -> list[int]:
    """Return the numbers of the things of a kind."""
    return [i for i, thing in enumerate(scene.things) if noun.fits(thing)]


def _verdict_of_caption(caption: Caption, scene: Scene) -> bool | None:
    """A caption is true if some choice of different things makes all of it true, false if each makes some of it so."""
    if caption.background not in (None, scene.background) or caption.total not in (None, len(scene.things)):
        return False
    free = set(range(len(scene.things)))
    for group in caption.groups:
        if group.number != 1:
            found = those(group.noun, scene)
            if len(found) != group.number:
                return False
            free -= set(found)
    singles = [i for i, group in enumerate(caption.groups) if group.number == 1]
    best: bool | None = False
    for chosen in permutations(sorted(free), len(singles)):
        match _verdict_of_choice(caption, dict(zip(singles, chosen, strict=True)), scene):
            case True:
                return True
            case None:
                best = None
    return best


def _verdict_of_choice(caption: Caption, chosen: dict[int, int], scene: Scene) -> bool | None:
    clear = True
    for i, thing in chosen.items():
        group = caption.groups[i]
        if not group.noun.fits(scene.things[thing]):
            return False
        lies = True if group.place is None else scene.things[thing].lies(group.place)
        if lies is False:
            return False
        clear = clear and lies is True
    for fact in caption.facts:
        holds = stands(scene, chosen[fact.subject], fact.relation, chosen[fact.object])
        if holds is False:
            return False
        clear = clear and holds is True
    return True if clear else None


def stands(scene: Scene, one: int, relation: Relation | Comparison, other: int) -> bool | None:
    """Return whether thing `one` stands so to thing `other`, or compares so with it; None where it could be argued."""
    if relation == "larger":
        return scene.larger(one, other)
    if relation == "smaller":
        return scene.larger(other, one)
    return scene.stands(one, relation, other)


def plan_caption(scene: Scene, random: Random, detail: float) -> Caption:
    """Return something true that mentions each optional fact with the probability `detail`."""
    order = random.sample(range(len(scene.things)), len(scene.things))
    if len(order) > 2 and random.random() > max(detail, 0.8):
        # not everything must be told
        order.pop()
    background = scene.background if random.random() < detail else None
    told = [scene.things[i] for i in order]
    kinds = Counter((thing.shape, thing.colour) for thing in told)
    if max(kinds.values()) > 1 and len(kinds) <= 2 and random.random() > detail:
        nouns = [Noun(*kind) for kind in kinds]
        # one that was left out may be another of the same kind
        return Caption(tuple(Group(noun, len(those(noun, scene))) for noun in nouns), (), background)
    groups = [Group(_noun(thing, random, detail)) for thing in told]
    facts: tuple[Fact, ...] = ()
    total = None
    if len(order) > 1 and random.random() < 0.6:
        facts = _facts(scene, order, random)
    elif len(order) == len(scene.things) == len(kinds) > 1 and random.random() < 0.25 * (1 - detail):
        total = len(order)
    else:
        groups = [_placed(group, thing, random, detail) for group, thing in zip(groups, told, strict=True)]
    if total is None and random.random() < ABSENT_SHARE:
        groups.append(Group(_missing(scene, random), 0))
    return Caption(tuple(groups), facts, background, total)


def _noun(thing: Thing, random: Random, detail: float) -> Noun:
    size = thing.size if random.random() < detail else None
    return Noun(thing.shape, thing.colour, size, thing.texture if random.random() < detail else None)


def _placed(group: Group, thing: Thing, random: Random, detail: float) -> Group:
    return replace(group, place=thing.place) if random.random() < detail else group


def _missing(scene: Scene, random: Random) -> Noun:
    """Return a kind of which there is nothing."""
    while True:
        kinds = scene.kinds
        noun = Noun(random.choice(kinds.shapes), random.choice(kinds.colours) if random.random() < 0.7 else None)
        if not those(noun, scene) and not kinds.withholds(noun.shape, noun.colour):
            return noun


def _facts(scene: Scene, order: list[int], random: Random) -> tuple[Fact, ...]:
    """Return how the second stands to the first, told from the first, and the third to one of them, where clear."""
    facts: list[Fact] = []
    larger = scene.larger(order[0], order[1])
    relation = scene.relation(order[0], order[1])
    if larger is not None and random.random() < COMPARED_SHARE:
        facts.append(Fact(0, "larger" if larger else "smaller", 1))
    elif relation is not None:
        facts.append(Fact(0, relation, 1))
    shapes = [scene.things[i].shape for i in order]
    for known in random.sample((0, 1), 2) if len(order) > 2 else ():
        relation = scene.relation(order[2], order[known])
        if relation is not None and shapes.count(shapes[known]) == 1:
            facts.append(Fact(2, relation, known))
            break
    return tuple(facts)


def distortions(meaning: Caption, scene: Scene, random: Random) -> Iterator[Distortion]:
    """Yield what differs from a caption in one thing, and is beyond doubt false of the scene, in random order."""
    found = list(_distorted(meaning, random, scene.kinds))
    random.shuffle(found)
    for distortion in found:
        if distortion.meaning != meaning and verdict(distortion.meaning, scene) is False:
            yield distortion


def _distorted(caption: Caption, random: Random, kinds: Kinds) -> Iterator[Distortion]:
    for i, group in enumerate(caption.groups):
        yield from _renamed(caption, i, random, kinds)
        if group.place is not None:
            place = random.choice([name for name in PLACES if name != group.place])
            yield Distortion("replace_rel", _with(caption, i, replace(group, place=place)))
    for i, fact in enumerate(caption.facts):
        other = _reversed(fact.relation)
        facts = (*caption.facts[:i], replace(fact, relation=other), *caption.facts[i + 1 :])
        yield Distortion("replace_rel", replace(caption, facts=facts))
    yield from _swapped(caption)
    added = Group(Noun(random.choice(kinds.shapes), random.choice(kinds.colours)))
    if caption.total is None and caption.groups[-1].number:
        yield Distortion("add_obj", replace(caption, groups=(*caption.groups, added)))


def _renamed(caption: Caption, i: int, random: Random, kinds: Kinds) -> Iterator[Distortion]:
    """Yield the caption with another, or one more, attribute or shape in group `i`."""
    group = caption.groups[i]
    for attribute, values in kinds.values.items():
        said = getattr(group.noun, attribute)
        others = [value for value in values if value != said]
        if not others:
            continue
        noun = replace(group.noun, **{attribute: random.choice(others)})
        kind: Kind = "replace_obj" if attribute == "shape" else "add_att" if said is None else "replace_att"
        yield Distortion(kind, _with(caption, i, replace(group, noun=noun)))


def _swapped(caption: Caption) -> Iterator[Distortion]:
    """Yield the caption with attributes, or things, of two groups exchanged; the words stay the same."""
    for i, j in combinations(range(len(caption.groups)), 2):
        a, b = caption.groups[i], caption.groups[j]
        for attribute in ("colour", "size", "texture"):
            one, two = getattr(a.noun, attribute), getattr(b.noun, attribute)
            if one != two and one is not None and two is not None:
                left = replace(a, noun=replace(a.noun, **{attribute: two}))
                right = replace(b, noun=replace(b.noun, **{attribute: one}))
                yield Distortion("swap_att", _with(_with(caption, i, left), j, right))
        left, right = replace(a, noun=b.noun), replace(b, noun=a.noun)
        exchanged = _with(_with(caption, i, left), j, right)
        yield Distortion("swap_obj", exchanged)
        named_again = {fact.object for fact in caption.facts if fact.object < fact.subject}
        if a.number == b.number == 1 and not named_again & {i, j}:
            yield Distortion("order", exchanged)


def _with(caption: Caption, i: int, group: Group) -> Caption:
    return replace(caption, groups=(*caption.groups[:i], group, *caption.groups[i + 1 :]))


def _reversed(relation: Relation | Comparison) -> Relation | Comparison:
    if relation == "larger":
        return "smaller"
    return "larger" if relation == "smaller" else OPPOSITE[relation]
