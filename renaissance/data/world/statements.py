"""Statements that are to be judged: sentences about two pictures, and hypotheses about one.

A text alone tells nothing of the judgement: what a sentence says (its form, its number, how much it names) is drawn
before it is drawn whether it is to be true, among what could be either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from random import Random
from typing import Literal

from renaissance.data.world.grammar import Voice, finished
from renaissance.data.world.meaning import Comparison, Noun, stands, those
from renaissance.data.world.references import Reference, phrase_of, plan_reference
from renaissance.data.world.scene import PLACES, Relation, Scene, Thing

PairForm = Literal[
    "both", "one", "neither", "some", "left picture", "right picture", "total", "more left", "more right"
]
Label = Literal["entailment", "neutral", "contradiction"]

PAIR_FORMS: tuple[PairForm, ...] = (
    "both", "one", "neither", "some", "left picture", "right picture", "total", "more left", "more right",
)  # fmt: skip
NAMED = (("shape",), ("colour",), ("shape", "colour"), ("shape", "texture"), ("colour", "size"))
RELATIONS: tuple[Relation | Comparison, ...] = ("left of", "right of", "above", "below", "larger", "smaller")
LABELS: dict[bool | None, Label] = {True: "entailment", None: "neutral", False: "contradiction"}


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence about two pictures. number: how many in all, for "total"."""

    form: PairForm
    noun: Noun
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A sentence about a picture: what a thing is like, where it lies, or how it stands to, or compares with, another.

    value: the colour, size or texture that the subject is said to have, which may be any of several things then.
    """

    subject: Reference
    value: str | None = None
    place: str | None = None
    relation: Relation | Comparison | None = None
    other: Reference | None = None


def statement_true(statement: Statement, scenes: tuple[Scene, Scene]) -> bool:
    """Return whether a sentence is true of two pictures, the left and the right one; the graphs alone decide."""
    left, right = (len(those(statement.noun, scene)) for scene in scenes)
    match statement.form:
        case "both":
            return left > 0 and right > 0
        case "one":
            return (left > 0) != (right > 0)
        case "neither":
            return left + right == 0
        case "some":
            return left + right > 0
        case "left picture":
            return left > 0
        case "right picture":
            return right > 0
        case "total":
            return left + right == statement.number
        case "more left":
            return left > right
        case "more right":
            return right > left


def plan_statement(scenes: tuple[Scene, Scene], truth: bool, random: Random) -> Statement:
    """Return a sentence that is true, or false, of two pictures."""
    while True:
        form, named = random.choice(PAIR_FORMS), random.choice(NAMED)
        number = random.choice((1, 2)) if form == "total" else None
        found: dict[bool, list[Statement]] = {True: [], False: []}
        for noun in _nouns(named, scenes, random):
            statement = Statement(form, noun, number)
            found[statement_true(statement, scenes)].append(statement)
        # what could not be otherwise would give itself away
        if found[True] and found[False]:
            return random.choice(found[truth])


def _nouns(named: tuple[str, ...], scenes: tuple[Scene, Scene], random: Random) -> list[Noun]:
    """Return the kinds of what is there, and as many others."""
    things = [thing for scene in scenes for thing in scene.things]
    here = [Noun(**{name: getattr(thing, name) for name in named}) for thing in things]
    kinds = scenes[0].kinds
    others = [Noun(**{name: random.choice(kinds.values[name]) for name in named}) for _ in here]
    return here + [noun for noun in others if not kinds.withholds(noun.shape, noun.colour)]


def say_statement(statement: Statement, language: str, random: Random) -> str:
    """Return a sentence about two pictures in words."""
    voice = Voice(language, random)
    match statement.form:
        case "total":
            phrase = voice.phrase(statement.noun, "number", statement.number or 0)
        case "more left" | "more right":
            phrase = voice.phrase(statement.noun, "bare", 2)
        case _:
            phrase = voice.phrase(statement.noun)
    return finished(voice, voice.fill(statement.form, a=phrase))


def label_of(hypothesis: Hypothesis, scene: Scene) -> Label:
    """Return what the picture makes of a hypothesis; neutral is what the graph leaves open.

    "The star is red" is left open where one star is red and another is not.
    """
    if hypothesis.value is not None:
        told = {_is(scene.things[i], hypothesis.value) for i in those(hypothesis.subject.noun, scene)}
        return LABELS[told.pop() if len(told) == 1 else None]
    index = _found(hypothesis.subject, scene)
    if hypothesis.place is not None:
        return LABELS[scene.things[index].lies(hypothesis.place)]
    assert hypothesis.relation is not None
    assert hypothesis.other is not None
    return LABELS[stands(scene, index, hypothesis.relation, _found(hypothesis.other, scene))]


def _found(reference: Reference, scene: Scene) -> int:
    (index,) = those(reference.noun, scene)
    return index


def _is(thing: Thing, value: str) -> bool:
    return value in (thing.colour, thing.size, thing.texture)


def hypotheses(scene: Scene, random: Random) -> Iterator[Hypothesis]:
    """Yield what can be said of things, true or not: of their looks and places, and of how two stand to each other."""
    yield from _of_looks(scene)
    things = range(len(scene.things))
    for i in things:
        subject = plan_reference(scene, i, random, located=False)
        if subject is not None:
            yield from (Hypothesis(subject, place=place) for place in PLACES)
    for i, j in permutations(things, 2):
        # sizes would tell which is larger; what is inside another is always the smaller
        one, other = (plan_reference(scene, k, random, located=False, unsaid=("size",)) for k in (i, j))
        if one is not None and other is not None and scene.relation(i, j) not in ("inside", "around"):
            yield from (Hypothesis(one, relation=relation, other=other) for relation in RELATIONS)


def _of_looks(scene: Scene) -> Iterator[Hypothesis]:
    """Yield sentences such as "the star is red" and "the striped shape is small", of each kind that is there."""
    values = {name: options for name, options in scene.kinds.values.items() if len(options) > 1}
    for said, asked in permutations(values, 2):
        for named in dict.fromkeys(getattr(thing, said) for thing in scene.things) if asked != "shape" else ():
            noun = Noun(**{said: named})
            for value in values[asked]:
                if not (asked == "colour" and scene.kinds.withholds(noun.shape, value)):
                    yield Hypothesis(Reference(noun), value)


def say_hypothesis(hypothesis: Hypothesis, language: str, random: Random) -> str:
    """Return a hypothesis in words."""
    voice = Voice(language, random)
    subject = phrase_of(hypothesis.subject, voice)
    if hypothesis.value is not None:
        return finished(voice, voice.fill("predicate clause", a=subject, p=hypothesis.value))
    if hypothesis.place is not None:
        return finished(voice, voice.fill("clause", a=subject, r=voice.fill(f"at {hypothesis.place}")))
    assert hypothesis.relation is not None
    assert hypothesis.other is not None
    compared = hypothesis.relation in ("larger", "smaller")
    rule = f"is {hypothesis.relation}" if compared else hypothesis.relation
    words = voice.fill(rule, a=subject, b=phrase_of(hypothesis.other, voice))
    return finished(voice, voice.fill("compared clause" if compared else "clause", a=subject, r=words))
