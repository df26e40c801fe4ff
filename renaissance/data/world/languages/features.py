"""What the grammars of all languages have in common: words, noun phrases, and what must agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Case = Literal["nom", "acc", "dat", "gen"]
Gender = Literal["m", "f", "n"]
Determiner = Literal["a", "the", "no", "number", "bare"]


@dataclass(frozen=True, slots=True)
class Word:
    """A noun. dative, genitive: its singular there, if that is another."""

    singular: str
    plural: str
    gender: Gender = "n"
    dative: str = ""
    genitive: str = ""


@dataclass(frozen=True, slots=True)
class Adjective:
    """What describes a noun: its forms, as many as the language tells apart, and where it stands.

    place: "usual" where adjectives of the language stand; "before" the noun where they usually follow it; "fixed" is
    the usual place, without endings; "after" everything else, without endings.
    """

    forms: tuple[str, ...]
    place: Literal["usual", "before", "fixed", "after"] = "usual"


@dataclass(frozen=True, slots=True)
class NounPhrase:
    """A noun with what belongs to it; `after` (a place, a relation) is words already."""

    head: Word
    determiner: Determiner = "a"
    number: int = 1
    adjectives: tuple[Adjective, ...] = ()
    after: str = ""

    @property
    def plural(self) -> bool:
        """Whether the noun is in the plural; "no star" is not."""
        return self.number > 1


@dataclass(frozen=True, slots=True)
class Language:
    """A grammar: its words, its rules, and how words are inflected.

    nouns, adjectives: the synonyms of each concept. rules: what can be said, in patterns with slots:
    `{a}` or `{a:dat}` is phrase a in a case, `{a|is|are}` a verb that agrees with it, `{red>a}` an adjective that does.
    nearest: a verb before several subjects agrees with the first of them.
    """

    code: str
    nouns: Mapping[str, tuple[Word, ...]]
    adjectives: Mapping[str, tuple[Adjective, ...]]
    rules: Mapping[str, tuple[str, ...]]
    inflect: Callable[[NounPhrase, Case], str]
    agree: Callable[[Adjective, NounPhrase], str]
    conjunction: str
    nearest: bool = False
    contractions: Mapping[str, str] = field(default_factory=dict)
