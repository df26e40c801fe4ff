"""Scene graphs: a few things with shape, colour, size, texture and place, and the relations that follow from geometry.

Lengths are shares of the picture's side; x grows to the right, y downwards.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any, Literal

Relation = Literal["left of", "right of", "above", "below", "inside", "around"]

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "diamond")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "turquoise")
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "dotted")
BACKGROUNDS = ("white", "light grey", "dark grey", "black")
ROUND_ENOUGH = ("circle", "square", "heart", "diamond")
OPPOSITE: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
    "inside": "around",
    "around": "inside",
}
# the part of the picture, and what it says of down and across
PLACES: dict[str, tuple[str, str]] = {
    "top left": ("top", "left"),
    "top": ("top", "middle"),
    "top right": ("top", "right"),
    "left": ("middle", "left"),
    "middle": ("middle", "middle"),
    "right": ("middle", "right"),
    "bottom left": ("bottom", "left"),
    "bottom": ("bottom", "middle"),
    "bottom right": ("bottom", "right"),
}

COUNTS = (1, 2, 3)
COUNT_WEIGHTS = (0.15, 0.55, 0.3)
INSIDE_SHARE = 0.15
TWIN_SHARE = 0.1
RADII = {"small": (0.12, 0.14), "large": (0.21, 0.25)}
MARGIN = 0.02
# of the pairs of a shape and a colour, one in so many is held out where a world has a compositional split
HELD_PAIRS = 4
GAP = 0.03
# one direction must exceed the other by this factor, so that nobody would argue
CLEARLY = 1.4
# and in a direction that is less than this share of the other, nothing is shifted
BARELY = 0.3


@dataclass(frozen=True, slots=True)
class Kinds:
    """Of what scenes are drawn, and what texts about them name. withheld: compositional pairs are left out."""

    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = COLOURS
    textures: tuple[str, ...] = TEXTURES
    backgrounds: tuple[str, ...] = BACKGROUNDS
    withheld: bool = False

    @property
    def values(self) -> dict[str, tuple[str, ...]]:
        """What each attribute of a thing may be."""
        return {"shape": self.shapes, "colour": self.colours, "size": SIZES, "texture": self.textures}

    def withholds(self, shape: str | None, colour: str | None) -> bool:
        """Return whether a shape in a colour is not to be drawn or named."""
        return self.withheld and shape is not None and colour is not None and is_compositional(shape, colour)


ALL = Kinds()


def is_compositional(shape: str, colour: str) -> bool:
    """Return whether a shape in a colour is kept for the compositional split: a fourth of the colours of each shape.

    The same pairs in every world, so that no world trains on what another one holds out.
    """
    return (SHAPES.index(shape) - COLOURS.index(colour)) % HELD_PAIRS == 0


@dataclass(frozen=True, slots=True)
class Thing:
    """One object. `radius` is that of the circle around it; (x, y) its centre."""

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float
    radius: float

    @property
    def looks(self) -> tuple[str, str, str, str]:
        """What it looks like, wherever it is."""
        return self.colour, self.shape, self.size, self.texture

    @property
    def place(self) -> str | None:
        """The part of the picture that it is in; None where two parts could be argued."""
        down, across = self._thirds()
        if across is None or down is None:
            return None
        words = [word for word in (down, across) if word != "middle"]
        return " ".join(words) or "middle"

    def lies(self, place: str) -> bool | None:
        """Return whether it is in a part of the picture; None where that could be argued.

        A thing at the top left is not clearly at the left, nor clearly elsewhere.
        """
        told = PLACES[place]
        clear = True
        for here, said in zip(self._thirds(), told, strict=True):
            unsaid = said == "middle" and told != ("middle", "middle")
            if here is None or (unsaid and here != "middle"):
                clear = False
            elif here != said:
                return False
        return True if clear else None

    def _thirds(self) -> tuple[str | None, str | None]:
        return _third(self.y, ("top", "middle", "bottom")), _third(self.x, ("left", "middle", "right"))


@dataclass(frozen=True, slots=True)
class Scene:
    """What is in a picture. kinds: what else it could have been, of which questions and false captions are made."""

    background: str
    things: tuple[Thing, ...]
    kinds: Kinds = field(default=ALL, compare=False, repr=False)

    def relation(self, one: int, other: int) -> Relation | None:
        """Return how thing `one` stands to thing `other`; None where it could be argued."""
        a, b = self.things[one], self.things[other]
        across, down = a.x - b.x, a.y - b.y
        distance = math.hypot(across, down)
        if distance + a.radius <= b.radius:
            return "inside"
        if distance + b.radius <= a.radius:
            return "around"
        if abs(across) > CLEARLY * abs(down):
            return "right of" if across > 0 else "left of"
        if abs(down) > CLEARLY * abs(across):
            return "below" if down > 0 else "above"
        return None

    def stands(self, one: int, relation: Relation, other: int) -> bool | None:
        """Return whether thing `one` stands so to thing `other`; None where it could be argued."""
        clear = self.relation(one, other)
        if clear == relation:
            return True
        if "inside" in (clear, relation) or "around" in (clear, relation):
            return False
        a, b = self.things[one], self.things[other]
        along, aside = (a.x - b.x, a.y - b.y) if relation in ("left of", "right of") else (a.y - b.y, a.x - b.x)
        towards = along if relation in ("right of", "below") else -along
        return False if towards <= BARELY * abs(aside) else None

    def larger(self, one: int, other: int) -> bool | None:
        """Return whether thing `one` is larger than thing `other`; None where both are small, or both large."""
        sizes = self.things[one].size, self.things[other].size
        return None if sizes[0] == sizes[1] else sizes[0] == "large"

    def graph(self) -> tuple[object, ...]:
        """Return what two scenes have in common exactly if they are the same scene, coordinates apart."""
        facts = []
        for i, thing in enumerate(self.things):
            stands = [(self.relation(i, j), other.looks) for j, other in enumerate(self.things) if j != i]
            facts.append((thing.looks, tuple(sorted((relation or "", looks) for relation, looks in stands))))
        return self.background, tuple(sorted(facts))

    def dump(self) -> dict[str, Any]:
        """Return the scene, JSON-able, with the relations that follow."""
        count = len(self.things)
        pairs = [(i, self.relation(i, j), j) for i in range(count) for j in range(count) if i != j]
        return {
            "background": self.background,
            "things": [asdict(thing) for thing in self.things],
            "relations": [list(fact) for fact in pairs if fact[1] is not None],
        }


def draw_scene(random: Random, kinds: Kinds = ALL) -> Scene:
    """Draw a scene of some kinds of things; the state of `random` alone decides which."""
    background = random.choice(kinds.backgrounds)
    count = random.choices(COUNTS, COUNT_WEIGHTS)[0]
    round_ones = [shape for shape in ROUND_ENOUGH if shape in kinds.shapes]
    if count == 2 and random.random() < INSIDE_SHARE / COUNT_WEIGHTS[1] and round_ones:
        return Scene(background, _nested(random, kinds, round_ones), kinds)
    while True:
        sizes = [random.choice(SIZES) for _ in range(count)]
        radii = [random.uniform(*RADII[size]) for size in sizes]
        centres = _centres(radii, random)
        if centres is not None:
            break
    things: list[Thing] = []
    for size, radius, (x, y) in zip(sizes, radii, centres, strict=True):
        shape, colour = _kind(things, random, kinds)
        texture = random.choice(kinds.textures)
        things.append(Thing(shape, colour, size, texture, round(x, 4), round(y, 4), round(radius, 4)))
    return Scene(background, tuple(things), kinds)


def _kind(others: list[Thing], random: Random, kinds: Kinds) -> tuple[str, str]:
    """Return shape and colour, those of another thing now and then, so that there is something to count."""
    if others and random.random() < TWIN_SHARE:
        return others[-1].shape, others[-1].colour
    while True:
        kind = random.choice(kinds.shapes), random.choice(kinds.colours)
        if kind not in [(thing.shape, thing.colour) for thing in others]:
            return kind


def _nested(random: Random, kinds: Kinds, round_ones: list[str]) -> tuple[Thing, ...]:
    """Return a large thing, plain if it can be, and a small one of another colour on it, the larger first."""
    outer, inner = random.sample(kinds.colours, 2)
    x, y = random.uniform(0.36, 0.64), random.uniform(0.36, 0.64)
    ground = "plain" if "plain" in kinds.textures else kinds.textures[0]
    wide = Thing(random.choice(round_ones), outer, "large", ground, round(x, 4), round(y, 4), 0.32)
    shape, texture = random.choice(kinds.shapes), random.choice(kinds.textures)
    small = Thing(shape, inner, "small", texture, round(x, 4), round(y, 4), 0.12)
    return wide, small


def _centres(radii: list[float], random: Random) -> list[tuple[float, float]] | None:
    """Return centres such that nothing touches, or None if this did not come out in some tries."""
    centres: list[tuple[float, float]] = []
    for radius in radii:
        near = MARGIN + radius
        for _ in range(40):
            x, y = random.uniform(near, 1 - near), random.uniform(near, 1 - near)
            others = zip(centres, radii, strict=False)
            if all(math.hypot(x - a, y - b) > radius + other + GAP for (a, b), other in others):
                centres.append((x, y))
                break
        else:
            return None
    return centres


def _third(value: float, names: tuple[str, str, str]) -> str | None:
    if value < 0.36:
        return names[0]
    if value > 0.64:
        return names[2]
    return names[1] if 0.44 < value < 0.56 else None
