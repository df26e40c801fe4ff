"""Captions in another order of words, as in ARO's COCO and Flickr30k order: four kinds, the same in every run.

The published ones are drawn anew in each run, with spaCy's tagger for nouns and adjectives. Here a list and endings
tell the words apart, and the caption itself seeds the draw: scores repeat, but are not to be put beside published ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from random import Random

from renaissance.data.hashing import stable_hash

MAX_WORDS = 30
_MARKS = re.compile(r"[.!\"()*#:;~]")
_DRAWS = 20
_ADJECTIVE_ENDINGS = ("ful", "ous", "less", "ish", "able", "ible", "est")
_OTHER_ENDINGS = ("ing", "ed", "ly")
_WORD_KINDS = "word_kinds.txt"


def order_options(caption: str) -> tuple[str, ...]:
    """Return the caption, lower-cased and cut to 30 words, and what the four shuffles make of it that reads otherwise.

    The shuffles: nouns among themselves and adjectives among themselves; all other words; words within each three; the
    threes. One that cannot change anything, as for a single word, gives nothing.
    """
    true = plain_caption(caption)
    options = [true]
    for name, shuffle in _SHUFFLES.items():
        random = Random(stable_hash("aro-order", name, caption))
        for _ in range(_DRAWS):
            changed = plain_caption(" ".join(shuffle(caption.split(), random)))
            if changed != true:
                options.append(changed)
                break
    return tuple(options)


def plain_caption(caption: str) -> str:
    """Return a caption in lower case, without marks, of at most 30 words."""
    return " ".join(_MARKS.sub(" ", caption.lower()).split()[:MAX_WORDS])


def _kind(word: str) -> str:
    plain = "".join(filter(str.isalpha, word.lower()))
    known = _word_kinds().get(plain)
    if known is not None:
        return known
    if plain.endswith(_ADJECTIVE_ENDINGS):
        return "adjective"
    return "other" if not plain or plain.endswith(_OTHER_ENDINGS) else "noun"


@cache
def _word_kinds() -> Mapping[str, str]:
    lines = files("renaissance.data.readers").joinpath(_WORD_KINDS).read_text(encoding="utf-8").splitlines()
    return {word: kind for kind, *words in map(str.split, lines) for word in words}


def _within(words: list[str], kinds: tuple[str, ...], random: Random) -> list[str]:
    """Shuffle the words of each of these kinds among the places that such words have."""
    changed = list(words)
    for kind in kinds:
        places = [place for place, word in enumerate(words) if _kind(word) == kind]
        drawn = random.sample(places, len(places))
        for place, source in zip(places, drawn, strict=True):
            changed[place] = words[source]
    return changed


def _threes(words: list[str]) -> list[list[str]]:
    return [words[start : start + 3] for start in range(0, len(words), 3)]


def _nouns_and_adjectives(words: list[str], random: Random) -> list[str]:
    return _within(words, ("noun", "adjective"), random)


def _all_but_nouns_and_adjectives(words: list[str], random: Random) -> list[str]:
    return _within(words, ("other",), random)


def _within_threes(words: list[str], random: Random) -> list[str]:
    return [word for three in _threes(words) for word in random.sample(three, len(three))]


def _order_of_threes(words: list[str], random: Random) -> list[str]:
    threes = _threes(words)
    return [word for three in random.sample(threes, len(threes)) for word in three]


_SHUFFLES: dict[str, Callable[[list[str], Random], list[str]]] = {
    "nouns and adjectives": _nouns_and_adjectives,
    "all but nouns and adjectives": _all_but_nouns_and_adjectives,
    "within threes": _within_threes,
    "order of threes": _order_of_threes,
}
