from __future__ import annotations

import re
from random import Random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renaissance.data.world.grammar import Voice, say
from renaissance.data.world.languages import LANGUAGES, find_language
from renaissance.data.world.languages.features import Adjective, Case, Determiner, NounPhrase, Word
from renaissance.data.world.meaning import plan_caption
from renaissance.data.world.scene import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES, TEXTURES, draw_scene

GERMAN = {
    "m": Word("Stern", "Sterne", "m", genitive="Sterns"),
    "f": Word("Raute", "Rauten", "f"),
    "n": Word("Herz", "Herzen", "n", dative="Herzen", genitive="Herzens"),
}
DECLINED = """
a m ein kleiner Stern | einen kleinen Stern | einem kleinen Stern | eines kleinen Sterns
a f eine kleine Raute | eine kleine Raute | einer kleinen Raute | einer kleinen Raute
a n ein kleines Herz | ein kleines Herz | einem kleinen Herzen | eines kleinen Herzens
the m der kleine Stern | den kleinen Stern | dem kleinen Stern | des kleinen Sterns
the f die kleine Raute | die kleine Raute | der kleinen Raute | der kleinen Raute
the n das kleine Herz | das kleine Herz | dem kleinen Herzen | des kleinen Herzens
no m kein kleiner Stern | keinen kleinen Stern | keinem kleinen Stern | keines kleinen Sterns
no f keine kleine Raute | keine kleine Raute | keiner kleinen Raute | keiner kleinen Raute
no n kein kleines Herz | kein kleines Herz | keinem kleinen Herzen | keines kleinen Herzens
bare m kleiner Stern | kleinen Stern | kleinem Stern | kleinen Sterns
bare f kleine Raute | kleine Raute | kleiner Raute | kleiner Raute
bare n kleines Herz | kleines Herz | kleinem Herzen | kleinen Herzens
number m zwei kleine Sterne | zwei kleine Sterne | zwei kleinen Sternen | zwei kleiner Sterne
number f zwei kleine Rauten | zwei kleine Rauten | zwei kleinen Rauten | zwei kleiner Rauten
number n zwei kleine Herzen | zwei kleine Herzen | zwei kleinen Herzen | zwei kleiner Herzen
"""
SPANISH = """
a círculo un círculo rojo pequeño
a estrella una estrella roja pequeña
the círculo el círculo rojo pequeño
the estrella la estrella roja pequeña
no círculo ningún círculo rojo pequeño
no estrella ninguna estrella roja pequeña
number círculo dos círculos rojos pequeños
number estrella dos estrellas rojas pequeñas
bare círculo círculos rojos pequeños
bare estrella estrellas rojas pequeñas
"""


@pytest.mark.parametrize("line", DECLINED.strip().splitlines())
def test_german_is_declined_by_article_gender_number_and_case(line: str) -> None:
    determiner, gender, forms = line.split(" ", 2)
    assert determiner in get_args(Determiner)
    number = 2 if determiner == "number" else 1
    phrase = NounPhrase(GERMAN[gender], determiner, number, (Adjective(("klein",)),))  # type: ignore[arg-type]
    inflect = find_language("de").inflect
    assert [inflect(phrase, case) for case in get_args(Case)] == forms.split(" | ")


@pytest.mark.parametrize("line", SPANISH.strip().splitlines())
def test_spanish_adjectives_follow_and_agree(line: str) -> None:
    determiner, noun, expected = line.split(" ", 2)
    language = find_language("es")
    head = language.nouns["circle" if noun == "círculo" else "star"][0]
    adjectives = (language.adjectives["small"][0], language.adjectives["red"][0])
    number = 2 if determiner in ("number", "bare") else 1
    assert language.inflect(NounPhrase(head, determiner, number, adjectives), "nom") == expected  # type: ignore[arg-type]


def test_spanish_grande_is_cut_before_a_singular_and_contracts_with_articles() -> None:
    language = find_language("es")
    head, large = language.nouns["star"][0], language.adjectives["large"][1]
    assert language.inflect(NounPhrase(head, "a", 1, (large,)), "nom") == "una gran estrella"
    assert language.inflect(NounPhrase(head, "number", 2, (large,)), "nom") == "dos grandes estrellas"
    voice = Voice("es", Random(0))
    assert voice.finish("a la izquierda de el círculo") == "a la izquierda del círculo"


def test_spanish_adjectives_do_not_stand_before_a_bare_noun() -> None:
    language = find_language("es")
    head, small = language.nouns["star"][0], language.adjectives["small"][1]
    assert language.inflect(NounPhrase(head, "bare", 2, (small,)), "nom") == "estrellas pequeñas"
    assert language.inflect(NounPhrase(head, "number", 2, (small,)), "nom") == "dos pequeñas estrellas"


def test_the_english_article_goes_by_the_sound_that_follows() -> None:
    language = find_language("en")
    head, orange = language.nouns["star"][0], language.adjectives["orange"][0]
    assert language.inflect(NounPhrase(head, "a", 1, (orange,)), "nom") == "an orange star"
    assert language.inflect(NounPhrase(head, "a"), "nom") == "a star"


@pytest.mark.parametrize("language", list(LANGUAGES))
def test_a_language_has_a_word_for_everything_and_the_rules_that_the_others_have(language: str) -> None:
    spoken = LANGUAGES[language]
    assert set(spoken.nouns) >= {*SHAPES, "shape", "thing", "background"}
    assert set(spoken.adjectives) >= {*COLOURS, *SIZES, *TEXTURES, *BACKGROUNDS}
    assert set(spoken.rules) == set(LANGUAGES["en"].rules)
    assert all(f"at {place}" in spoken.rules for place in PLACES)


@given(st.integers(0, 2**31), st.sampled_from(list(LANGUAGES)), st.floats(0, 1))
def test_sentences_are_clean(seed: int, language: str, detail: float) -> None:
    random = Random(seed)
    text = say(plan_caption(draw_scene(random), random, detail), language, random)
    assert not re.search(r"  |[{}|>]|,,| ,|,$|^\s|\s$", text)
    assert not re.search(r"\b(de el|a el|von dem|in dem|zu dem)\b", text)


@given(st.integers(0, 2**31), st.floats(0, 1))
def test_german_articles_and_endings_fit_each_other(seed: int, detail: float) -> None:
    random = Random(seed)
    text = re.sub("(rosa|lila) ", "", say(plan_caption(draw_scene(random), random, detail), "de", random))
    masculine, neuter, adjectives = r"(Kreis|Stern)\b", r"(Quadrat|Dreieck|Herz|Kreuz)\b", "([a-zäöüß]+ )*"
    assert not re.search(rf"\bk?ein {adjectives}[a-zäöüß]+(?<!er) {masculine}", text)
    assert not re.search(rf"\bk?ein {adjectives}[a-zäöüß]+(?<!es) {neuter}", text)
    assert not re.search(rf"\bk?(ein|einen|einem) {adjectives}Raute\b", text)
    assert not re.search(rf"\bk?(eine|einer|einen) {adjectives}{neuter}", text)
    assert not re.search(rf"\bk?(einen|einem|einer) {adjectives}[a-zäöüß]+(?<!en) [A-Z]", text)
    assert not re.search(rf"\bk?einem {adjectives}Herz\b", text)
