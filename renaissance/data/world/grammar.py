"""Meanings in words: rules with slots, filled with phrases that are inflected as the slot and the language ask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal, TypeVar
from zlib import crc32

from renaissance.data.world.languages import find_language
from renaissance.data.world.languages.features import Adjective, Case, Determiner, Language, NounPhrase
from renaissance.data.world.meaning import Absent, Caption, Count, Group, Meaning, Noun

SLOT = re.compile(r"\{([^}]*)\}")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Series:
    """Several phrases, joined as a rule says, perhaps after one that announces them ("three shapes")."""

    phrases: tuple[NounPhrase, ...]
    joined: str = "and"
    announced: NounPhrase | None = None


Value = NounPhrase | Series | str


class Voice:
    """One utterance in a language: chooses among synonyms, and chooses the same for the same concept.

    generic: what a thing is called where its shape is not said.
    """

    __slots__ = ("generic", "key", "language")

    def __init__(self, language: str, random: Random, *, generic: Literal["shape", "thing"] = "shape") -> None:
        self.language: Language = find_language(language)
        self.generic = generic
        self.key = random.getrandbits(48)

    def pick(self, name: str, options: tuple[T, ...]) -> T:
        """Return one of several ways to say the concept `name`."""
        if len(options) == 1:
            return options[0]
        mixed = (self.key ^ (_hashed(name) << 16)) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        return options[(mixed >> 33) % len(options)]

    def phrase(self, noun: Noun, determiner: Determiner = "a", number: int = 1, after: str = "") -> NounPhrase:
        """Return the noun phrase of a kind."""
        words = self.language.adjectives
        named = [name for name in (noun.size, noun.texture, noun.colour) if name is not None]
        adjectives = tuple(self.pick(name, words[name]) for name in named)
        shape = noun.shape or self.generic
        return NounPhrase(self.pick(shape, self.language.nouns[shape]), determiner, number, adjectives, after)

    def fill(self, rule: str, **values: Value) -> str:
        """Return what a rule gives with these phrases in its slots."""
        pattern = self.pick(rule, self.language.rules[rule])
        return "".join(self._slot(piece, values) if i % 2 else piece for i, piece in enumerate(_pieces(pattern)))

    def _slot(self, slot: str, values: dict[str, Value]) -> str:
        if ">" in slot:
            concept, _, name = slot.partition(">")
            named, noun = values.get(concept, concept), values[name]
            assert isinstance(named, str)
            assert isinstance(noun, NounPhrase)
            return self.language.agree(self._predicate(named), noun)
        if "|" in slot:
            name, one, more = slot.split("|")
            return more if self._plural(values[name]) else one
        name, _, case = slot.partition(":")
        return self._words(values[name], _CASES[case])

    def _predicate(self, name: str) -> Adjective:
        """Return an adjective that may stand without a noun, if there is one."""
        words = self.language.adjectives[name]
        alone = tuple(word for word in words if word.place in ("usual", "fixed"))
        return self.pick(name, alone or words)

    def _plural(self, value: Value) -> bool:
        """Whether a verb with this as its subject is in the plural."""
        assert not isinstance(value, str)
        if isinstance(value, NounPhrase):
            return value.plural
        if self.language.nearest or len(value.phrases) == 1:
            return (value.announced or value.phrases[0]).plural
        return True

    def _words(self, value: Value, case: Case) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, NounPhrase):
            return self.language.inflect(value, case)
        parts = [self.language.inflect(phrase, case) for phrase in value.phrases]
        text = parts[-1]
        if parts[:-1]:
            text = self.fill(value.joined, x=", ".join(parts[:-1]), y=text)
        if value.announced is None:
            return text
        return self.fill("list", a=self.language.inflect(value.announced, case), x=text)

    def finish(self, text: str) -> str:
        """Contract what the language contracts, and set the commas right."""
        for long, short in self.language.contractions.items():
            if long in text:
                text = re.sub(rf"\b{long}\b", short, text)
        if "," not in text:
            return text
        # a clause between commas: none doubles, and none stands before the end
        return re.sub(r",+(?=[.?!,:]|$)", "", text.replace(" ,", ","))


_CASES: dict[str, Case] = {"": "nom", "nom": "nom", "acc": "acc", "dat": "dat", "gen": "gen"}


@cache
def _hashed(name: str) -> int:
    return crc32(name.encode())


@cache
def _pieces(pattern: str) -> tuple[str, ...]:
    """Cut a pattern: words and slots in turn, words first."""
    return tuple(SLOT.split(pattern))


def say(meaning: Meaning, language: str, random: Random) -> str:
    """Return a meaning in words, without a capital at the beginning and a full stop at the end.

    Draws from `random` once: with the same state, two meanings of the same parts are said in the same words.

    Raises:
        SpecError: there is no grammar of this language.
    """
    voice = Voice(language, random)
    match meaning:
        case Count(noun, 0) | Absent(noun):
            text = voice.fill("absent", a=voice.phrase(noun, "no"))
        case Count(noun, number):
            text = voice.fill("count", a=voice.phrase(noun, "number", number))
        case Caption():
            text = _caption(voice, meaning)
    return voice.finish(text)


def finished(voice: Voice, text: str) -> str:
    """Return a sentence: contracted, and with a capital."""
    text = voice.finish(text)
    first = 1 if text.startswith("¿") else 0
    return text[:first] + text[first].upper() + text[first + 1 :]


def _caption(voice: Voice, caption: Caption) -> str:
    chunks: list[NounPhrase] = []
    told: set[int] = set()
    joined = "and"
    for i in range(len(caption.groups)):
        if i not in told:
            told.add(i)
            chunks.append(_chunk(voice, caption, i, told))
            joined = "chain" if chunks[-1].after and caption.facts and len(chunks) > 1 else joined
    announced = None if caption.total is None else voice.phrase(Noun(), "number", caption.total)
    body = voice.fill("opening", x=Series(tuple(chunks), joined, announced))
    if caption.background is None:
        return body
    return _on_ground(voice, body, caption.background)


def _on_ground(voice: Voice, body: str, background: str) -> str:
    language = voice.language
    ground = NounPhrase(
        voice.pick("background", language.nouns["background"]), "bare", 1, (language.adjectives[background][0],)
    )
    return voice.fill("ground", x=body, ground=ground, p=background)


def _chunk(voice: Voice, caption: Caption, i: int, told: set[int]) -> NounPhrase:
    """Return group `i`, with how it stands to another, which is told with it unless it was before."""
    group = caption.groups[i]
    after = "" if group.place is None else voice.fill(f"at {group.place}")
    phrase = _group(voice, group)
    for fact in caption.facts:
        if fact.subject == i:
            known = fact.object in told
            told.add(fact.object)
            other = _known(voice, caption, fact.object) if known else _group(voice, caption.groups[fact.object])
            after = voice.fill(fact.relation, a=phrase, b=other)
    return NounPhrase(phrase.head, phrase.determiner, phrase.number, phrase.adjectives, after)


def _group(voice: Voice, group: Group) -> NounPhrase:
    if group.number == 1:
        return voice.phrase(group.noun)
    return voice.phrase(group.noun, "number", group.number) if group.number else voice.phrase(group.noun, "no")


def _known(voice: Voice, caption: Caption, i: int) -> NounPhrase:
    """Return "the star": what was told before, by its shape if no other thing has it."""
    noun = caption.groups[i].noun
    alone = [group.noun.shape for group in caption.groups].count(noun.shape) == 1
    return voice.phrase(Noun(noun.shape) if alone else noun, "the")
