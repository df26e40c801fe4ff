"""The study of languages asks for names that there are, in pictures that none of its stages trains on."""

from __future__ import annotations

import re

import pytest

from renaissance.studies.arms import Arm, expand
from renaissance.studies.design import Study
from renaissance.studies.library import load

GIVEN = load("languages")
assert isinstance(GIVEN.content, Study)
ARMS = expand(GIVEN.content, "cpu").arms
COMMAND = re.search(rb"--languages (\S+)", GIVEN.raw)  # that makes the data, in the comment above the study
assert COMMAND is not None
LANGUAGES = COMMAND[1].decode().split(",")


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_each_stage_measures_all_names_and_those_of_each_language_in_the_data(arm: Arm) -> None:
    assert len(LANGUAGES) == 9
    for recipe in arm.recipes.values():
        assert recipe["data"]["splits"] == ["test", *(f"test-{language}" for language in LANGUAGES)]


def test_the_names_of_each_language_are_in_the_package() -> None:
    package = pytest.importorskip("emoji")
    assert set(LANGUAGES) <= set(package.LANGUAGES)


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm.name)
def test_no_stage_trains_on_pictures_that_another_trains_on_or_that_are_tested(arm: Arm) -> None:
    pictures = [recipe["data"]["train"].partition("-")[0] for recipe in arm.recipes.values()]
    assert len({*pictures, "test"}) == len(pictures) + 1


def test_pretraining_shows_no_name_but_english_ones() -> None:
    assert {arm.recipes["pretrain"]["data"]["train"] for arm in ARMS if "pretrain" in arm.recipes} == {"train-en"}
