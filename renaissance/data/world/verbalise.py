"""English captions of scenes: each true, each with other facts and other words."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

from renaissance.data.world.scene import OPPOSITE, Relation, Scene, Thing

SYNONYMS: dict[str, tuple[str, ...]] = {
    "large": ("large", "big"),
    "small": ("small", "little"),
    "white": ("on white", "on a white background"),
    "light grey": ("on light grey", "on a light grey background"),
    "dark grey": ("on dark grey", "on a dark grey background"),
    "black": ("on black", "on a black background"),
}
PHRASES: dict[Relation, tuple[str, ...]] = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "inside": ("inside", "within"),
    "around": ("around",),
}
OPENINGS = ("", "", "", "there is ", "a picture of ", "a drawing of ", "here is ", "this shows ", "one can see ")
NUMBERS = {2: "two", 3: "three"}
TRIES = 30


def captions(scene: Scene, count: int, random: Random, taken: set[str] | None = None) -> tuple[str, ...]:
    """Return `count` different captions, none of them in `taken`, to which they are added.

    The longer it takes to find one that is free, the more facts a caption mentions.
    """
    taken = set() if taken is None else taken
    found: list[str] = []
    tries = 0
    while len(found) < count:
        detail = min(1.0, 0.25 + tries / TRIES)
        text = _caption(scene, random, detail)
        tries += 1
        if text not in taken and text not in found:
            found.append(text)
            tries = 0
    taken.update(found)
    return tuple(found)


def _caption(scene: Scene, random: Random, detail: float) -> str:
    """Return a caption that mentions each optional fact with the probability `detail`."""
    order = random.sample(range(len(scene.things)), len(scene.things))
    if len(order) > 2 and random.random() > max(detail, 0.8):
        # not everything must be told
        order.pop()
    twins = Counter((scene.things[i].colour, scene.things[i].shape) for i in order)
    if max(twins.values()) > 1 and len(twins) <= 2 and random.random() > detail:
        body = _joined([_counted(kind, number) for kind, number in twins.items()])
    elif len(order) > 1 and random.random() < 0.6:
        body = _related(scene, order, random, detail)
    elif len(order) > 1 and len(twins) == len(order) and random.random() < 0.25 * (1 - detail):
        body = f"{NUMBERS[len(order)]} shapes, {_joined([_thing(scene.things[i], random, detail) for i in order])}"
    else:
        body = _joined([_placed(scene.things[i], random, detail) for i in order])
    opening = random.choice(OPENINGS)
    if body.startswith(tuple(NUMBERS.values())):
        opening = opening.replace(" is ", " are ")
    ground = f" {random.choice(SYNONYMS[scene.background])}" if random.random() < detail else ""
    return f"{opening}{body}{ground}"


def _related(scene: Scene, order: list[int], random: Random, detail: float) -> str:
    """Return the things one after the other, each with how it stands to the one before, where that is clear."""
    text = _thing(scene.things[order[0]], random, detail)
    shapes = [scene.things[i].shape for i in order]
    for before, i in pairwise(order):
        relation = scene.relation(before, i)
        thing = _thing(scene.things[i], random, detail)
        known = scene.things[before].shape
        if relation is not None and before == order[0]:
            text = f"{text} {random.choice(PHRASES[relation])} {thing}"
        elif relation is not None and shapes.count(known) == 1:
            text = f"{text}, and {thing} {random.choice(PHRASES[OPPOSITE[relation]])} the {known}"
        else:
            text = f"{text} and {thing}"
    return text


def _placed(thing: Thing, random: Random, detail: float) -> str:
    """Return a thing, perhaps with the part of the picture that it is in."""
    if thing.place is None or random.random() > detail:
        return _thing(thing, random, detail)
    return f"{_thing(thing, random, detail)} {'in' if thing.place == 'middle' else 'at'} the {thing.place}"


def _thing(thing: Thing, random: Random, detail: float) -> str:
    """Return a thing with its colour and shape, and perhaps its size and texture: "a large striped red star"."""
    words = [thing.colour, thing.shape]
    after = ""
    if random.random() < detail:
        if thing.texture != "plain" and random.random() < 0.3:
            after = {"striped": " with stripes", "dotted": " with dots"}[thing.texture]
        else:
            words.insert(0, thing.texture)
    if random.random() < detail:
        words.insert(0, random.choice(SYNONYMS[thing.size]))
    return f"{_article(words[0])} {' '.join(words)}{after}"


def _counted(kind: tuple[str, str], number: int) -> str:
    colour, shape = kind
    if number == 1:
        return f"{_article(colour)} {colour} {shape}"
    return f"{NUMBERS[number]} {colour} {shape}{'es' if shape.endswith('s') else 's'}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _joined(parts: list[str]) -> str:
    """Return "a", "a and b", or "a, b and c"."""
    return " and ".join([*([", ".join(parts[:-1])] if parts[:-1] else []), parts[-1]])
