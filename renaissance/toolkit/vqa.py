"""The VQA score: how an answer is normalised, and how right it is given the answers of all annotators.

The arithmetic is that of the evaluation script of the VQA challenge (GT-Vision-Lab), its quirks included: periods go
unless a digit follows, the first 32 of them; both sides are normalised only where the annotators differ.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
COMMA_IN_NUMBER = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
PERIODS_REMOVED = 32  # the script passes a flag where the count of replacements stands
ARTICLES = frozenset(("a", "an", "the"))
NUMBERS = {
    word: str(number)
    for number, words in enumerate(
        ("none zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
    for word in words.split()
}
# Each is also written with one of its apostrophes left out, and then put right.
CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _spelled_without() -> dict[str, str]:
    found = {
        word[:place] + word[place + 1 :]: word
        for word in CONTRACTED.split()
        for place, letter in enumerate(word)
        if letter == "'"
    }
    return {**found, "somebody'd": "somebodyd"}  # so it stands in the script


CONTRACTIONS = _spelled_without()


def cleaned(answer: str) -> str:
    """Return an answer on one line, as both sides are compared where all annotators agree."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=100_000)  # the answers of a corpus are few, and each is given many times
def normalised(answer: str) -> str:
    """Return an answer without punctuation, articles and capitals, numbers as digits and contractions put right."""
    words = [NUMBERS.get(word, word) for word in _without_punctuation(answer).lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _without_punctuation(text: str) -> str:
    """Remove marks that stand beside a space, or any in a text with a comma inside a number; others become spaces."""
    thousands = COMMA_IN_NUMBER.search(text) is not None
    found = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if beside_space or thousands else " ")
    return PERIOD.sub("", found, count=PERIODS_REMOVED)


class Judged:
    """The annotators' answers to one question: how right each possible answer is.

    as_written: the answers are compared as they are written, because they are all the same.
    """

    __slots__ = ("as_written", "rights")

    def __init__(self, answers: Sequence[str]) -> None:
        written = [cleaned(answer) for answer in answers]
        self.as_written = len(set(written)) == 1
        counts = Counter(written if self.as_written else map(normalised, written))
        self.rights: Mapping[str, float] = {answer: _soft(count, len(answers)) for answer, count in counts.items()}

    def score(self, answer: str) -> float:
        """Return how right an answer is, from 0 to 1."""
        told = cleaned(answer)
        return self.rights.get(told if self.as_written else normalised(told), 0.0)


def _soft(count: int, annotators: int) -> float:
    """Return the mean of min(1, agreeing others / 3) over the annotators, each left out in turn; one alone is right."""
    if annotators == 1:
        return 1.0
    with_it, without = min(1.0, count / 3), min(1.0, (count - 1) / 3)
    return (count * without + (annotators - count) * with_it) / annotators


def vocabulary(answers: Iterable[str], *, minimum: int = 9) -> tuple[str, ...]:
    """Return the normalised answers that are given at least `minimum` times, the frequent ones first.

    With the most common answer of each question of VQAv2's train and val, and 9, these are the usual 3,129.
    """
    counts = Counter(normalised(cleaned(answer)) for answer in answers)
    return tuple(sorted((a for a, n in counts.items() if n >= minimum), key=lambda answer: (-counts[answer], answer)))
