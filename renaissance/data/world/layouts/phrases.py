"""Bare noun phrases, without "there is" and the like, as regions and ARO's captions are worded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from renaissance.data.world.grammar import Voice
from renaissance.data.world.meaning import Caption


def phrases(meaning: Caption, languages: Sequence[str], key: int) -> dict[str, str]:
    """Return one thing ("a red star"), or two that are related or joined, in each language.

    With the same key, two meanings of the same parts get the same words.
    """
    return {language: _phrase(meaning, Voice(language, Random(key))) for language in languages}


def _phrase(meaning: Caption, voice: Voice) -> str:
    first, *others = (voice.phrase(group.noun) for group in meaning.groups)
    if not others:
        return voice.finish(voice.fill("bare", x=first))
    (second,) = others
    if meaning.facts:
        (fact,) = meaning.facts
        related = replace(first, after=voice.fill(fact.relation, a=first, b=second))
        return voice.finish(voice.fill("bare", x=related))
    return voice.finish(voice.fill("and", x=voice.fill("bare", x=first), y=voice.fill("bare", x=second)))
