"""Negatives of SugarCrepe of which words alone tell that they are false are not taken."""

from __future__ import annotations

import pytest

from renaissance.data.world.layouts.sugarcrepe import shows
from renaissance.data.world.meaning import Caption, Fact, Group, Noun

STAR, HEART, CROSS = Noun("star", "red"), Noun("heart", "blue"), Noun("cross", "green")


def caption(*groups: Group, facts: tuple[Fact, ...] = ()) -> Caption:
    return Caption(groups, facts)


def of(*nouns: Noun, facts: tuple[Fact, ...] = ()) -> Caption:
    return caption(*map(Group, nouns), facts=facts)


def beside(relation: str) -> tuple[Fact, ...]:
    return (Fact(0, relation, 1),)  # type: ignore[arg-type]


CHAIN = (Fact(0, "above", 1), Fact(2, "left of", 1))
TOLD = {
    "what is missing is told in few words": (
        caption(Group(Noun("star", "red", "small")), Group(CROSS, 0)),
        caption(Group(CROSS), Group(Noun("star", "red", "small"), 0)),
    ),
    "a small thing is around none": (
        of(Noun("star", size="small"), HEART, facts=beside("inside")),
        of(Noun("star", size="small"), HEART, facts=beside("around")),
    ),
    "a small thing is larger than few": (
        of(Noun("star", size="small"), HEART, facts=beside("smaller")),
        of(Noun("star", size="small"), HEART, facts=beside("larger")),
    ),
    "what is inside is the smaller one": (
        of(Noun("star", size="small"), HEART, facts=beside("inside")),
        of(Noun("star", size="large"), HEART, facts=beside("inside")),
    ),
    "'the heart' is another thing now": (of(STAR, HEART, CROSS, facts=CHAIN), of(STAR, CROSS, HEART, facts=CHAIN)),
    "'the heart' is one of two": (
        of(STAR, HEART, CROSS, facts=CHAIN),
        of(Noun("heart", "red"), HEART, CROSS, facts=CHAIN),
    ),
    "two things are alike": (of(STAR, Noun("star", "blue")), of(STAR, Noun("star", "red"))),
    "few things lie in a corner": (caption(Group(STAR, place="middle")), caption(Group(STAR, place="top left"))),
    "two things at one place": (
        caption(Group(STAR, place="top"), Group(HEART, place="bottom")),
        caption(Group(STAR, place="top"), Group(HEART, place="top")),
    ),
}
FAIR = {
    "left for right": (of(STAR, HEART, facts=beside("left of")), of(STAR, HEART, facts=beside("right of"))),
    "another colour": (of(STAR, HEART), of(Noun("star", "green"), HEART)),
    "another shape": (of(STAR, HEART), of(Noun("circle", "red"), HEART)),
    "another place": (caption(Group(STAR, place="top left")), caption(Group(STAR, place="bottom right"))),
    "two exchanged": (of(STAR, HEART, facts=beside("above")), of(HEART, STAR, facts=beside("above"))),
    "one more": (of(STAR), of(STAR, HEART)),
    "a change beside what is inside": (
        of(STAR, HEART, CROSS, facts=beside("inside")),
        of(STAR, HEART, Noun("cross", "pink"), facts=beside("inside")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TOLD)
def test_what_words_alone_tell_is_no_negative(case: str) -> None:
    assert shows(*TOLD[case])


@pytest.mark.parametrize("case", FAIR)
def test_what_only_the_picture_tells_is_one(case: str) -> None:
    assert not shows(*FAIR[case])
