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
from renaissance.data.world.scene import Relation, Scene

PairForm = Literal[
    "both", "one", "neither", "some", "left picture", "right picture", "total", "more left", "more right"
]
Label = Literal["entailment", "neutral", "contradiction"]

PAIR_FORMS: tuple[PairForm, ...] = (
    "both", "one", "neither", "some", "left picture", "right picture", "total", "more left", "more right",
)  # fmt: skip
NAMED = (("shape",), ("colour",), ("shape", "colour"), ("shape", "texture"), ("colour", "size"))
CORNERS = ("top left", "top right", "bottom left", "bottom right")
EDGES = ("left", "right", "top", "bottom")
# How often a possible hypothesis is stated, so that of what is said of a kind, each label has a third.
KEPT: dict[str, dict[Label, float]] = {
    "corner": {"entailment": 1.0, "neutral": 0.95, "contradiction": 0.49},
    "edge": {"entailment": 1.0, "neutral": 0.24, "contradiction": 0.21},
    "direction": {"entailment": 1.0, "neutral": 0.73, "contradiction": 0.57},
    "size": {"entailment": 1.0, "neutral": 0.76, "contradiction": 0.71},
}
LABELS: dict[bool | None, Label] = {True: "entailment", None: "neutral", False: "contradiction"}


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence about two pictures. number: how many in all, for "total"."""

    form: PairForm
    noun: Noun
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A sentence about one picture: where a thing lies, or how it stands to, or compares with, another."""

    subject: Reference
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


def statement(scenes: tuple[Scene, Scene], truth: bool, random: Random, language: str) -> str:
    """Return a sentence, true or false as asked, about two pictures, the left and the right one."""
    return say_statement(plan_statement(scenes, truth, random), language, random)


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
    """Return what the picture makes of a hypothesis; neutral is what the graph leaves open."""
    index = _found(hypothesis.subject, scene)
    if hypothesis.place is not None:
        return LABELS[scene.things[index].lies(hypothesis.place)]
    assert hypothesis.relation is not None
    assert hypothesis.other is not None
    return LABELS[stands(scene, index, hypothesis.relation, _found(hypothesis.other, scene))]


def _found(reference: Reference, scene: Scene) -> int:
    (index,) = those(reference.noun, scene)
    return index


def plan_hypothesis(scene: Scene, label: Label, random: Random) -> Hypothesis | None:
    """Return a hypothesis that has this label; None if the picture allows for none."""
    for group in random.sample(tuple(KEPT), len(KEPT)):
        found = [hypothesis for hypothesis in _said(group, scene, random) if label_of(hypothesis, scene) == label]
        if found and random.random() < KEPT[group][label]:
            return random.choice(found)
    return None


def _said(group: str, scene: Scene, random: Random) -> Iterator[Hypothesis]:
    match group:
        case "corner":
            return _places(scene, random, CORNERS)
        case "edge":
            return _places(scene, random, EDGES)
        case "direction":
            return _relations(scene, random, ("left of", "right of", "above", "below"))
        case _:
            return _relations(scene, random, ("larger", "smaller"))


def _places(scene: Scene, random: Random, places: tuple[str, ...]) -> Iterator[Hypothesis]:
    for i in range(len(scene.things)):
        subject = plan_reference(scene, i, random, located=False)
        if subject is not None:
            yield from (Hypothesis(subject, place=place) for place in places)


def _relations(scene: Scene, random: Random, relations: tuple[Relation | Comparison, ...]) -> Iterator[Hypothesis]:
    """Yield relations between things that are named without their sizes, which would tell the answer."""
    for i, j in permutations(range(len(scene.things)), 2):
        subject, other = (plan_reference(scene, k, random, located=False, unsaid=("size",)) for k in (i, j))
        if subject is not None and other is not None and scene.relation(i, j) not in ("inside", "around"):
            yield from (Hypothesis(subject, relation=relation, other=other) for relation in relations)


def hypothesis(scene: Scene, label: Label, random: Random, language: str) -> str | None:
    """Return a sentence that follows from, is left open by, or contradicts the picture; None if there is none such."""
    planned = plan_hypothesis(scene, label, random)
    return None if planned is None else say_hypothesis(planned, language, random)


def say_hypothesis(hypothesis: Hypothesis, language: str, random: Random) -> str:
    """Return a hypothesis in words."""
    voice = Voice(language, random)
    subject = phrase_of(hypothesis.subject, voice)
    if hypothesis.place is not None:
        return finished(voice, voice.fill("clause", a=subject, r=voice.fill(f"at {hypothesis.place}")))
    assert hypothesis.relation is not None
    assert hypothesis.other is not None
    compared = hypothesis.relation in ("larger", "smaller")
    rule = f"is {hypothesis.relation}" if compared else hypothesis.relation
    words = voice.fill(rule, a=subject, b=phrase_of(hypothesis.other, voice))
    return finished(voice, voice.fill("compared clause" if compared else "clause", a=subject, r=words))
