"""The VQA score against an independent, slow reading of the challenge's script, and the vocabulary."""

from __future__ import annotations

import random
from functools import cache

import pytest

from renaissance.toolkit.vqa import CONTRACTIONS, Judged, cleaned, normalised, vocabulary

MARKS = ';/[]"{}()=+\\_-><@`,?!'
CONTRACTED = {"dont": "don't", "couldntve": "couldntve", "couldnt've": "couldn't've", "twas": "'twas", "yall": "y'all"}
DIGITS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "ten": "10"}
WORDS = ("yes", "no", "a", "the", "An", "two", "ten", "none", "Red", "red.", "1.5", "1,000", "don't", "dont", "twas")
WORDS += ("left/right", "t-shirt", "it's", "yall", "couldnt've", "couldntve", "...", "3.", "x ,y", "really?", "(blue)")


@cache
def slow_normalised(text: str) -> str:
    """Go through the script's steps letter by letter."""
    commas = any(a.isdigit() and b == "," and c.isdigit() for a, b, c in zip(text, text[1:], text[2:], strict=False))
    out = text
    for mark in MARKS:
        touches = any(text[i : i + 2] in (mark + " ", " " + mark) for i in range(len(text)))
        out = "".join(("" if touches or commas else " ") if letter == mark else letter for letter in out)
    kept, removed = [], 0
    for place, letter in enumerate(out):
        followed = place + 1 < len(out) and out[place + 1].isdigit()
        if letter == "." and not followed and removed < 32:
            removed += 1
            continue
        kept.append(letter)
    words = [DIGITS.get(word, word) for word in "".join(kept).lower().split()]
    return " ".join(CONTRACTED.get(word, word) for word in words if word not in ("a", "an", "the"))


def slow_score(answer: str, answers: list[str]) -> float:
    """Leave each annotator out in turn."""
    told = answer.replace("\n", " ").replace("\t", " ").strip()
    given = [each.replace("\n", " ").replace("\t", " ").strip() for each in answers]
    if len(set(given)) > 1:
        told, given = slow_normalised(told), [slow_normalised(each) for each in given]
    scores = []
    for left_out in range(len(given)):
        agreeing = 0
        for other, each in enumerate(given):
            agreeing += other != left_out and each == told
        scores.append(min(1, agreeing / 3))
    return sum(scores) / len(scores)


def test_ten_thousand_generated_annotations_score_as_the_slow_reading_says() -> None:
    draw = random.Random(0)
    for _ in range(10_000):
        pool = [" ".join(draw.choices(WORDS, k=draw.choice((1, 1, 2, 3)))) for _ in range(draw.choice((1, 2, 4)))]
        answers = [draw.choice(pool) for _ in range(10)]
        if draw.random() < 0.1:
            answers[0] += draw.choice(("\n", "\t", " "))
        answer = draw.choice([*pool, " ".join(draw.choices(WORDS, k=2))])
        if draw.random() < 0.2:
            answer = answer.swapcase()
        assert Judged(answers).score(answer) == pytest.approx(slow_score(answer, answers), abs=1e-12), (answer, answers)


@pytest.mark.parametrize(("agreeing", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_the_score_grows_with_the_annotators_that_agree(agreeing: int, expected: float) -> None:
    answers = ["red"] * agreeing + [f"other {i}" for i in range(10 - agreeing)]
    assert Judged(answers).score("red") == pytest.approx(expected)


def test_answers_that_all_agree_are_compared_as_they_are_written() -> None:
    assert Judged(["The Red"] * 10).score("red") == 0.0
    assert Judged(["The Red"] * 10).score("The Red") == 1.0
    assert Judged(["The Red"] * 9 + ["x"]).score("red") == 1.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Cat.", "cat"),
        ("two dogs", "2 dogs"),
        ("1,000", "1000"),
        ("1.5", "1.5"),
        ("t-shirt", "t shirt"),
        ("yes, it is", "yes it is"),
        ("dont", "don't"),
        ("hadnt've", "hadn't've"),
        ("oclock", "o'clock"),
        ("somebody'd", "somebodyd"),
        ("Im", "im"),
        ("none", "0"),
        (". " * 40, ". . . . . . . ."),
    ],
)
def test_answers_are_normalised(answer: str, expected: str) -> None:
    assert normalised(answer) == expected


def test_the_scripts_contractions_are_all_there() -> None:
    # as many as the script has, without those that change nothing or that, with their capitals, never match
    assert len(CONTRACTIONS) == 114
    assert all(value.replace("'", "") == key.replace("'", "") for key, value in CONTRACTIONS.items())


def test_a_single_annotator_is_right() -> None:
    assert Judged(["red"]).score("red") == 1.0
    assert Judged(["red"]).score("blue") == 0.0


def test_the_vocabulary_holds_frequent_answers_the_most_frequent_first() -> None:
    answers = ["Two"] * 9 + ["2"] * 3 + ["a cat"] * 9 + ["dog"] * 8
    assert vocabulary(answers) == ("2", "cat")
    assert vocabulary(answers, minimum=8) == ("2", "cat", "dog")


def test_cleaning_leaves_one_line() -> None:
    assert cleaned(" a\nb\tc ") == "a b c"
