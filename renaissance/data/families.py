"""Families of captions: groups so far apart that no caption of one is a word away from a caption of another."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence

from renaissance.data.captions import normalise

Words = tuple[int, ...]
_PUNCTUATION = re.compile(r"[^\w\s]|_")


def families(captions: Sequence[Sequence[str]]) -> list[int]:
    """Return the family of each record, given the captions of each; a family is named by its first record.

    Two captions are linked if, without regard to case and punctuation, they are equal, or differ by one word that is
    replaced, inserted or deleted and share another one; and if they have the same words before a colon. A family is
    all that links connect; the captions of one record are linked too.
    """
    parents = list(range(len(captions)))
    first: dict[Hashable, int] = {}
    deletions: dict[Words, list[int]] = {}
    numbers: dict[str, int] = {}
    for record, texts in enumerate(captions):
        for text in map(normalise, texts):
            words = _words(text, numbers)
            for key in _keys(text, words, numbers):
                _link(parents, record, first.setdefault(key, record))
            for shorter in _one_less(words):
                deletions.setdefault(shorter, []).append(record)
    for shorter, records in deletions.items():
        # a caption that *is* another one without a word; that two captions share what is left says nothing by itself
        if ("whole", shorter) in first:
            for record in records:
                _link(parents, record, first["whole", shorter])
    return [_root(parents, record) for record in range(len(captions))]


def _words(text: str, numbers: dict[str, int]) -> Words:
    """Return the words as numbers, which hash alike in every process."""
    return tuple(numbers.setdefault(word, len(numbers) + 1) for word in _PUNCTUATION.sub(" ", text).split())


def _keys(text: str, words: Words, numbers: dict[str, int]) -> Iterator[Hashable]:
    """Yield what this caption shares with those that it is linked to, insertions and deletions apart."""
    prefix, colon, _ = text.partition(":")
    if colon and (named := _words(prefix, numbers)):
        yield "prefix", named
    if words:
        yield "whole", words
    else:
        yield "text", text
    if len(words) > 1:
        for place in range(len(words)):
            # 0 stands for the word that may be another one
            yield "replaced", (*words[:place], 0, *words[place + 1 :])


def _one_less(words: Words) -> Iterator[Words]:
    if len(words) > 1:
        for place in range(len(words)):
            yield (*words[:place], *words[place + 1 :])


def _root(parents: list[int], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


def _link(parents: list[int], one: int, other: int) -> None:
    low, high = sorted((_root(parents, one), _root(parents, other)))
    parents[high] = low
