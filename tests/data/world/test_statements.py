from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renaissance.data.world.meaning import Noun
from renaissance.data.world.references import Reference
from renaissance.data.world.scene import ALL, COLOURS, Scene, Thing, draw_scene
from renaissance.data.world.statements import (
    Hypothesis,
    Label,
    PairForm,
    Statement,
    hypotheses,
    label_of,
    plan_statement,
    say_hypothesis,
    say_statement,
    statement_true,
)

seeds = st.integers(0, 2**31)


def star(x: float) -> Thing:
    return Thing("star", "red", "small", "plain", x, 0.5, 0.12)


ONE, TWO = Scene("white", (star(0.2),)), Scene("white", (star(0.2), star(0.8)))
NONE = Scene("white", (Thing("heart", "blue", "small", "plain", 0.5, 0.5, 0.12),))


@pytest.mark.parametrize(
    ("form", "number", "truths"),
    [
        ("both", None, (True, False, False)),
        ("one", None, (False, True, False)),
        ("neither", None, (False, False, True)),
        ("some", None, (True, True, False)),
        ("left picture", None, (True, False, False)),
        ("right picture", None, (True, True, False)),
        ("total", 3, (True, False, False)),
        ("more left", None, (False, False, False)),
        ("more right", None, (True, True, False)),
    ],
)
def test_the_oracle_judges_two_pictures(form: PairForm, number: int | None, truths: tuple[bool, ...]) -> None:
    said = Statement(form, Noun("star"), number)
    assert tuple(statement_true(said, pair) for pair in ((ONE, TWO), (NONE, ONE), (NONE, NONE))) == truths


@given(seeds, st.booleans())
def test_statements_are_as_true_as_was_asked(seed: int, truth: bool) -> None:
    random = Random(seed)
    scenes = draw_scene(random), draw_scene(random)
    assert statement_true(plan_statement(scenes, truth, random), scenes) is truth
    assert say_statement(plan_statement(scenes, truth, random), "de", random).endswith(".")


def test_a_text_tells_nothing_of_the_truth_of_a_statement() -> None:
    tally: dict[tuple[object, ...], Counter[bool]] = {}
    for seed in range(2000):
        random = Random(seed)
        scenes, truth = (draw_scene(random), draw_scene(random)), bool(seed % 2)
        said = plan_statement(scenes, truth, random)
        tally.setdefault((said.form, said.number), Counter())[truth] += 1
    assert sum(max(truths.values()) for truths in tally.values()) / 2000 < 0.56


@pytest.mark.parametrize(
    ("value", "labels"),
    [("red", ("entailment", "neutral", "contradiction")), ("small", ("entailment", "entailment", "entailment"))],
)
def test_what_is_true_of_one_of_two_stars_is_open(value: str, labels: tuple[Label, ...]) -> None:
    blue = replace(star(0.8), colour="blue")
    scenes = (Scene("white", things) for things in ((star(0.2), star(0.5)), (star(0.2), blue), (blue, blue)))
    said = Hypothesis(Reference(Noun("star")), value)
    assert tuple(label_of(said, scene) for scene in scenes) == labels


@given(seeds)
def test_hypotheses_are_of_looks_places_and_relations_and_can_be_said(seed: int) -> None:
    random = Random(seed)
    scene = draw_scene(random)
    found = list(hypotheses(scene, random))
    assert {label_of(one, scene) for one in found} >= {"entailment", "contradiction"}
    assert any(one.value for one in found)
    assert all(say_hypothesis(one, "es", random).endswith(".") for one in found)


def test_nothing_is_said_of_pairs_that_a_world_withholds() -> None:
    kinds = replace(ALL, withheld=True)
    scene = Scene("white", (star(0.2),), kinds)
    said = {one.value for one in hypotheses(scene, Random(0)) if one.subject.noun.shape and one.value in COLOURS}
    assert said == {colour for colour in COLOURS if not kinds.withholds("star", colour)}
