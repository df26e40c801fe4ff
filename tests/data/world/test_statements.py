from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renaissance.data.world.meaning import Noun
from renaissance.data.world.scene import Scene, Thing, draw_scene
from renaissance.data.world.statements import (
    KEPT,
    Hypothesis,
    Label,
    PairForm,
    Statement,
    hypothesis,
    label_of,
    plan_hypothesis,
    plan_statement,
    statement,
    statement_true,
)

seeds = st.integers(0, 2**31)
LABELS: tuple[Label, ...] = ("entailment", "neutral", "contradiction")


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
    assert statement(scenes, truth, random, "de").endswith(".")


def test_a_text_tells_nothing_of_the_truth_of_a_statement() -> None:
    tally: dict[tuple[object, ...], Counter[bool]] = {}
    for seed in range(2000):
        random = Random(seed)
        scenes, truth = (draw_scene(random), draw_scene(random)), bool(seed % 2)
        said = plan_statement(scenes, truth, random)
        tally.setdefault((said.form, said.number), Counter())[truth] += 1
    assert sum(max(truths.values()) for truths in tally.values()) / 2000 < 0.56


@given(seeds, st.sampled_from(LABELS))
def test_hypotheses_have_the_label_that_was_asked_for(seed: int, label: Label) -> None:
    random = Random(seed)
    scene = draw_scene(random)
    planned = plan_hypothesis(scene, label, random)
    assert planned is None or label_of(planned, scene) == label
    text = hypothesis(scene, label, random, "es")
    assert text is None or text.endswith(".")


def test_a_text_tells_little_of_the_label_of_a_hypothesis() -> None:
    tally: dict[tuple[object, ...], Counter[str]] = {}
    for seed in range(2000):
        random = Random(seed)
        scene = draw_scene(random)
        planned: dict[Label, Hypothesis | None] = {label: plan_hypothesis(scene, label, random) for label in LABELS}
        for label, said in planned.items():
            if said is not None:
                tally.setdefault((said.place, said.relation), Counter())[label] += 1
    total = sum(labels.total() for labels in tally.values())
    assert total > 0.7 * 3 * 2000
    assert sum(max(labels.values()) for labels in tally.values()) / total < 0.40
    assert set(KEPT) == {"corner", "edge", "direction", "size"}
