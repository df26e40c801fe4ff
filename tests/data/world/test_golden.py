"""Fifty sentences a language, each checked ending by ending: they may not change unseen."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from renaissance.data.world.grammar import say
from renaissance.data.world.meaning import Absent, Caption, Count, Fact, Group, Noun
from renaissance.data.world.questions import Asked, Reference, ask, say_reference
from renaissance.data.world.statements import Hypothesis, Statement, say_hypothesis, say_statement

A, B, C = Group(Noun("circle", "red", "large")), Group(Noun("star", "blue")), Group(Noun("diamond", "green", "small"))
CIRCLE, STAR, HEART, CROSS = Noun("circle"), Noun("star", "blue"), Noun("heart", "pink"), Noun("cross", "orange")

SAID: tuple[Caption | Count | Absent | Asked | Reference | Statement | Hypothesis, ...] = (
    Caption((A,)),
    Caption((C,)),
    Caption((A, C)),
    Caption((A, B), (Fact(0, "left of", 1),)),
    Caption((A, B), (Fact(0, "right of", 1),)),
    Caption((C, Group(Noun("square", "yellow", None, "dotted"))), (Fact(0, "above", 1),)),
    Caption((B, Group(HEART)), (Fact(0, "below", 1),)),
    Caption((Group(Noun("heart", "purple", "small")), A), (Fact(0, "inside", 1),)),
    Caption((A, Group(Noun("triangle", "turquoise", None, "plain"))), (Fact(0, "around", 1),)),
    Caption((A, C, B), (Fact(0, "left of", 1), Fact(2, "below", 1))),
    Caption((B, A, C), (Fact(0, "above", 1), Fact(2, "right of", 0)), "black"),
    Caption((C, B), (Fact(0, "larger", 1),), "white"),
    Caption((Group(CROSS), A), (Fact(0, "smaller", 1),)),
    Caption((Group(Noun("cross", "red"), 2), B)),
    Caption((Group(Noun("diamond", "orange"), 3),)),
    Caption((Group(Noun("heart", "yellow"), 2), Group(Noun("square", "green"))), (), "light grey"),
    Caption((Group(CIRCLE, 1, "top left"), Group(STAR, 1, "middle"))),
    Caption((Group(CROSS, 1, "bottom right"), Group(HEART, 1, "left")), (), "dark grey"),
    Caption((A, B, C), (), None, 3),
    Caption((A, Group(STAR, 0))),
    Caption((C, Group(Noun("square"), 0)), (), "white"),
    Caption((Group(Noun("square", "turquoise", "small", "striped"), 1, "top"),)),
    Caption((Group(Noun("triangle", "pink", "large", "dotted")), Group(Noun("cross", "purple", None, "striped")))),
    Count(Noun("star", "blue"), 2),
    Count(Noun("heart", "red", "small"), 1),
    Absent(Noun("diamond", "yellow")),
    Absent(Noun("circle", "purple")),
    Reference(CIRCLE, relation="left of", other=Noun("square")),
    Reference(Noun("star", "red"), place="bottom left"),
    Reference(Noun("cross"), most="left"),
    Reference(Noun(None, "green"), relation="inside", other=Noun("circle")),
    Reference(Noun("diamond"), relation="above", other=Noun("star")),
    Asked("exists", Reference(Noun("circle", "red"))),
    Asked("exists", Reference(Noun("star", "yellow"))),
    Asked("is", Reference(CIRCLE), "red"),
    Asked("is", Reference(STAR), "small"),
    Asked("stands", Reference(CIRCLE), "below", HEART),
    Asked("stands", Reference(STAR), "smaller", Noun("triangle")),
    Asked("lies", Reference(Noun("cross")), "top right"),
    Asked("how many", Reference(Noun("star"))),
    Asked("how many", Reference(Noun(None, "red"))),
    Asked("colour", Reference(Noun("heart"), relation="right of", other=Noun("square"))),
    Asked("shape", Reference(Noun(None, "blue"))),
    Asked("texture", Reference(Noun("diamond"))),
    Statement("both", Noun("star", "green")),
    Statement("one", Noun("square", "red")),
    Statement("neither", Noun("cross", "blue")),
    Statement("total", Noun("circle", "yellow"), 2),
    Statement("more left", Noun(None, "orange")),
    Hypothesis(Reference(Noun("star")), relation="larger", other=Reference(Noun("heart", "red"))),
    Hypothesis(Reference(Noun("cross")), "dotted"),
)


def told(meaning: object, language: str, random: Random) -> str:
    match meaning:
        case Asked():
            return ask(meaning, language, random)
        case Reference():
            return say_reference(meaning, language, random)
        case Statement():
            return say_statement(meaning, language, random)
        case Hypothesis():
            return say_hypothesis(meaning, language, random)
        case Caption() | Count() | Absent():
            return say(meaning, language, random)
    raise AssertionError(meaning)


@pytest.mark.parametrize("language", ["en", "de", "es"])
def test_the_golden_sentences_are_said_as_they_were_checked(language: str) -> None:
    golden = (Path(__file__).parent / f"golden_{language}.txt").read_text(encoding="utf-8").splitlines()
    assert [told(meaning, language, Random(number)) for number, meaning in enumerate(SAID)] == golden
    assert len(golden) >= 50
