from __future__ import annotations

from collections import Counter
from functools import cache
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from renaissance.data.world.meaning import Noun
from renaissance.data.world.questions import (
    Asked,
    answer_to,
    kind_of,
    plan_questions,
    plan_reference,
    questions,
    refer,
    referred,
)
from renaissance.data.world.references import Reference
from renaissance.data.world.scene import Scene, Thing, draw_scene

seeds = st.integers(0, 2**31)


@cache
def many(count: int) -> list[tuple[Scene, Asked]]:
    found = []
    for seed in range(count):
        random = Random(seed)
        scene = draw_scene(random)
        found += [(scene, asked) for asked in plan_questions(scene, random)]
    return found


@given(seeds)
def test_every_question_has_one_answer_and_every_yes_a_no(seed: int) -> None:
    random = Random(seed)
    scene = draw_scene(random)
    told = questions(scene, random, "en")
    answers = Counter(question.answer for question in told if question.kind == "yes/no")
    assert answers["yes"] == answers["no"] > 0
    assert set(answers) == {"yes", "no"}
    assert all(question.text.endswith("?") and question.text[0].isupper() for question in told)
    assert all(question.answer.isdigit() == (question.kind == "number") for question in told)


def test_answers_are_balanced() -> None:
    tally: dict[str, Counter[str]] = {}
    for scene, asked in many(2000):
        noun = asked.subject.noun
        form = (
            f"{asked.form} {'shape' if noun.shape else 'colour' if noun.colour else ''}"
            if (asked.form == "how many")
            else asked.form
        )
        tally.setdefault(form, Counter())[answer_to(asked, scene) or "none"] += 1
    for form, answers in tally.items():
        assert "none" not in answers
        # no answer is more than a third as frequent again as the mean
        assert max(answers.values()) < 1.33 * answers.total() / len(answers), (form, answers)
    assert {form.split()[0] for form in tally} >= {"exists", "is", "stands", "lies", "how", "colour", "shape", "size"}


def test_a_text_tells_nothing_of_yes_or_no() -> None:
    tally: dict[tuple[str, str | None], Counter[str]] = {}
    for scene, asked in many(2000):
        if kind_of(asked) == "yes/no":
            tally.setdefault((asked.form, asked.value), Counter())[answer_to(asked, scene) or ""] += 1
    best = sum(max(answers.values()) for answers in tally.values()) / sum(a.total() for a in tally.values())
    assert best < 0.55


@given(seeds)
def test_a_question_means_the_same_in_every_language(seed: int) -> None:
    def answers(language: str) -> list[str]:
        random = Random(seed)
        scene = draw_scene(random)
        return [question.answer for question in questions(scene, random, language)]

    assert answers("en") == answers("de") == answers("es")


@given(seeds)
def test_a_reference_means_one_thing(seed: int) -> None:
    random = Random(seed)
    scene = draw_scene(random)
    for i in range(len(scene.things)):
        for located in (True, False):
            reference = plan_reference(scene, i, random, located=located)
            if reference is not None:
                assert referred(reference, scene) == [i]
                assert located or reference == Reference(reference.noun)


def test_the_oracle_of_references_lists_all_that_could_be_meant() -> None:
    scene = Scene(
        "white",
        tuple(Thing("star", "red", "small", "plain", x, 0.5, 0.12) for x in (0.2, 0.5, 0.8)),
    )
    assert referred(Reference(Noun("star")), scene) == [0, 1, 2]
    assert referred(Reference(Noun("heart")), scene) == []
    assert referred(Reference(Noun("star"), most="right"), scene) == [2]
    assert referred(Reference(Noun("star"), place="middle"), scene) == [1]
    assert referred(Reference(Noun("star"), relation="left of", other=Noun("star")), scene) == [0, 1]
    assert refer(scene, 1, Random(0), "en", located=False) is None
    assert refer(scene, 0, Random(0), "de") is not None


def test_a_question_without_its_subject_has_no_answer() -> None:
    scene = Scene("white", (Thing("star", "red", "small", "plain", 0.5, 0.5, 0.12),))
    assert answer_to(Asked("colour", Reference(Noun("heart"))), scene) is None
    assert answer_to(Asked("stands", Reference(Noun("star")), "above", Noun("heart")), scene) is None
    assert answer_to(Asked("side", Reference(Noun("star"))), scene) is None
    assert answer_to(Asked("how many", Reference(Noun("heart"))), scene) == "0"
