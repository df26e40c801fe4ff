"""Questions about a scene, with the answers that its graph gives.

A text alone tells nothing of the answer: each yes has a no twin of the same form, the values of an attribute are
equally frequent among its answers, and so are the numbers that a form of question asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from renaissance.data.world.grammar import Voice, finished
from renaissance.data.world.meaning import Comparison, Noun, stands, those
from renaissance.data.world.references import (
    Reference,
    phrase_of,
    plan_reference,
    refer,
    referred,
    say_reference,
    shortest_noun,
)
from renaissance.data.world.scene import OPPOSITE, PLACES, Relation, Scene

__all__ = (
    "Asked",
    "Question",
    "Reference",
    "answer_to",
    "ask",
    "plan_questions",
    "plan_reference",
    "question",
    "questions",
    "refer",
    "referred",
    "say_reference",
)

QuestionKind = Literal["yes/no", "number", "other"]
Form = Literal["exists", "is", "stands", "lies", "how many", "colour", "shape", "size", "texture", "side"]

MIRRORED = {"left": "right", "right": "left", "top": "bottom", "bottom": "top", "middle": "middle"}
NAMED = (("shape",), ("colour",), ("shape", "colour"), ("shape", "colour"), ("shape", "size", "colour"))
FORMS: tuple[Literal["colour", "shape", "size", "texture"], ...] = ("colour", "shape", "size", "texture")
# small things are more frequent, because large ones do not always fit
SMALL_KEPT = 0.64
# How often a possible question is asked, so that the numbers of a form are equally frequent: the rarer a scene that
# has so many, the more often. Scenes of one thing are 15%, of two 55%, of three 30%.
KEPT: dict[str, dict[int, float]] = {
    "any": {1: 1.0, 2: 0.15 / 0.55, 3: 0.15 / 0.3},
    "shape": {0: 0.25, 1: 0.25, 2: 1.0},
    "colour": {0: 0.25, 1: 0.25, 2: 1.0},
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as data. value: what is asked of the subject (a colour, relation, place); other: what it stands to."""

    form: Form
    subject: Reference
    value: str | None = None
    other: Noun | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question in words. The answer is an English word or a digit, whatever the language."""

    text: str
    answer: str
    kind: QuestionKind


def questions(scene: Scene, random: Random, language: str) -> tuple[Question, ...]:
    """Return some questions about a scene, with their answers."""
    return tuple(question(asked, scene, random, language) for asked in plan_questions(scene, random))


def question(asked: Asked, scene: Scene, random: Random, language: str) -> Question:
    """Return a question in words, with the answer that the scene gives."""
    answer = answer_to(asked, scene)
    assert answer is not None
    return Question(ask(asked, language, random), answer, kind_of(asked))


def kind_of(asked: Asked) -> QuestionKind:
    """Return the type of the answer, as VQAv2 names it."""
    if asked.form == "how many":
        return "number"
    return "yes/no" if asked.form in ("exists", "is", "stands", "lies") else "other"


def answer_to(asked: Asked, scene: Scene) -> str | None:
    """Return the answer that the scene graph gives; None where there is no one thing asked for, or it can be argued."""
    if asked.form == "exists":
        return _yes_no(bool(those(asked.subject.noun, scene)))
    if asked.form == "how many":
        return str(len(those(asked.subject.noun, scene)))
    found = referred(asked.subject, scene)
    if len(found) != 1:
        return None
    thing = scene.things[found[0]]
    match asked.form:
        case "is":
            return _yes_no(asked.value in (thing.colour, thing.shape, thing.size, thing.texture))
        case "lies":
            return _yes_no(thing.lies(asked.value or ""))
        case "stands":
            others = those(asked.other or Noun(), scene)
            return _yes_no(stands(scene, found[0], _relation(asked), others[0])) if len(others) == 1 else None
        case "side":
            return {1: "left", -1: "right", 0: None}[(thing.x < 0.36) - (thing.x > 0.64)]
        case form:
            return str(getattr(thing, form))


def _relation(asked: Asked) -> Relation | Comparison:
    return asked.value  # type: ignore[return-value]  # the planner puts only relations there


def _yes_no(truth: bool | None) -> str | None:
    return None if truth is None else "yes" if truth else "no"


def plan_questions(scene: Scene, random: Random) -> tuple[Asked, ...]:
    """Return questions that have an answer: two pairs of yes/no twins, and up to one number and two others."""
    pairs = list(_pairs(scene, random))
    chosen = random.sample(pairs, min(2, len(pairs)))
    asked = [one for pair in chosen for one in random.sample(pair, 2)]
    asked += _numbers(scene, random)
    others = list(_others(scene, random))
    return (*asked, *random.sample(others, min(2, len(others))))


def _pairs(scene: Scene, random: Random) -> Iterator[tuple[Asked, Asked]]:
    """Yield questions with the answers yes and no, of which each text is as likely as the other."""
    yield _exists(scene, random)
    for i, thing in enumerate(scene.things):
        attribute = random.choice(_telling(scene, ("colour", "size", "texture")))
        subject = plan_reference(scene, i, random, unsaid=(attribute,)) if _open(scene, i, attribute, random) else None
        if subject is not None:
            here = getattr(thing, attribute)
            there = random.choice([value for value in scene.kinds.values[attribute] if value != here])
            yield Asked("is", subject, here), Asked("is", subject, there)
        if thing.place not in (None, "middle"):
            subject = plan_reference(scene, i, random, located=False)
            if subject is not None:
                yield Asked("lies", subject, thing.place), Asked("lies", subject, _mirrored(thing.place or ""))
        for j in range(len(scene.things)):
            yield from _standing(scene, i, j, random)


def _telling(scene: Scene, attributes: tuple[str, ...]) -> tuple[str, ...]:
    """Return those attributes in which things of the scene's world differ at all."""
    return tuple(name for name in attributes if len(scene.kinds.values[name]) > 1)


def _exists(scene: Scene, random: Random) -> tuple[Asked, Asked]:
    thing, values = random.choice(scene.things), scene.kinds.values
    said = random.choice(NAMED)
    if len(said) == 1 and all(those(Noun(**{said[0]: value}), scene) for value in values[said[0]]):
        said = ("shape", "colour")  # there is one of each shape, or colour
    here = Noun(**{name: getattr(thing, name) for name in said})
    there = here
    while those(there, scene) or scene.kinds.withholds(there.shape, there.colour):
        there = Noun(**{name: random.choice(values[name]) for name in said})
    return Asked("exists", Reference(here)), Asked("exists", Reference(there))


def _open(scene: Scene, i: int, attribute: str, random: Random) -> bool:
    """Whether to ask for an attribute of a thing: not where its being inside or around another tells the answer."""
    if attribute == "colour":
        return True
    if any(scene.relation(i, j) in ("inside", "around") for j in range(len(scene.things)) if j != i):
        return False
    return attribute != "size" or scene.things[i].size == "large" or random.random() < SMALL_KEPT


def _mirrored(place: str) -> str:
    """Return the opposite part of the picture, which is as frequent."""
    told = tuple(MIRRORED[word] for word in PLACES[place])
    return next(name for name, words in PLACES.items() if words == told)


def _standing(scene: Scene, i: int, j: int, random: Random) -> Iterator[tuple[Asked, Asked]]:
    """Yield a relation and its opposite; sizes would tell which is larger, and inside is only what is small."""
    relation, larger = scene.relation(i, j) if i != j else None, scene.larger(i, j) if i != j else None
    nouns = [shortest_noun(scene, k, random, unsaid=("size",)) for k in (i, j)]
    one, other = nouns
    if one is None or other is None:
        return
    subject = Reference(one)
    if relation not in (None, "inside", "around"):
        yield Asked("stands", subject, relation, other), Asked("stands", subject, OPPOSITE[relation], other)
    if larger is not None and relation not in ("inside", "around"):
        values = ("larger", "smaller") if larger else ("smaller", "larger")
        yield Asked("stands", subject, values[0], other), Asked("stands", subject, values[1], other)


def _numbers(scene: Scene, random: Random) -> list[Asked]:
    form = random.choice(tuple(KEPT))
    if form == "any":
        options = [(Noun(), len(scene.things))]
    else:
        wanted = random.choice(tuple(KEPT[form]))
        nouns = [Noun(**{form: value}) for value in scene.kinds.values[form]]
        options = [(noun, wanted) for noun in nouns if len(those(noun, scene)) == wanted]
    if not options:
        return []
    noun, number = random.choice(options)
    return [Asked("how many", Reference(noun))] if random.random() < KEPT[form][number] else []


def _others(scene: Scene, random: Random) -> Iterator[Asked]:
    forms = [form for form in FORMS if form in _telling(scene, FORMS)]
    for i, thing in enumerate(scene.things):
        for form in forms:
            asked = _open(scene, i, form, random)
            subject = plan_reference(scene, i, random, unsaid=(form,)) if asked else None
            if subject is not None:
                yield Asked(form, subject)
        subject = plan_reference(scene, i, random, located=False) if not 0.36 <= thing.x <= 0.64 else None
        if subject is not None:
            yield Asked("side", subject)


def ask(asked: Asked, language: str, random: Random) -> str:
    """Return a question in words."""
    voice = Voice(language, random, generic="thing" if asked.form == "shape" else "shape")
    noun, value = asked.subject.noun, asked.value or ""
    subject = phrase_of(asked.subject, voice)
    match asked.form:
        case "exists":
            text = voice.fill("exists?", a=voice.phrase(noun))
        case "how many":
            text = voice.fill("how many?", a=voice.phrase(noun, "bare", 2))
        case "is":
            text = voice.fill("predicate?", a=subject, p=value)
        case "lies":
            text = voice.fill("stands?", a=subject, r=voice.fill(f"at {value}"))
        case "stands":
            other = voice.phrase(asked.other or Noun(), "the")
            compared = value in ("larger", "smaller")
            words = voice.fill(f"is {value}" if compared else value, a=subject, b=other)
            text = voice.fill("compares?" if compared else "stands?", a=subject, r=words)
        case form:
            text = voice.fill(f"{form}?", a=subject)
    return finished(voice, text)
