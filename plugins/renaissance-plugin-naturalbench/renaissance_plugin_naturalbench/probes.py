"""MMVP (the benchmark of image encoders, MMVP-VLM) and NaturalBench: what is compared, and how it is counted.

Comparisons are strict: where two scores are equal nothing was said, and what was asked counts as wrong.

Letters in shapes: I items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.api import Item, ItemScorer, ModelFacts, Score
from renaissance.errors import DataError
from renaissance.toolkit.metrics import accuracy_score, finite, macro_score, numbered
from renaissance_plugin_naturalbench.entries import ProbeOptions

PATTERNS = 9  # of MMVP, each with 15 pairs
FIRST = {"yes": True, "a": True, "no": False, "b": False}  # whether an answer of NaturalBench is the first of the two
Judge = Callable[[Sequence[Item], Tensor], list[Score]]
Rows = Callable[[Sequence[Item], Tensor], list[Mapping[str, Any]]]


class Probe(nn.Module):
    """Compare the scores of an item's two images with its texts: judge measures, rows are those of the prediction file.

    Both get the items and their scores fp32 [I, 2, texts].
    """

    def __init__(self, name: str, texts: int, judge: Judge, rows: Rows, options: ProbeOptions) -> None:
        super().__init__()
        self.name, self.texts, self.judge, self.rows, self.options = name, texts, judge, rows, options

    def score(self, scorer: ItemScorer) -> list[Score]:
        """Return the scores.

        Raises:
            NonFiniteError: a score of a pair is NaN or infinite.
            CapabilityError: the model compares no images with texts.
            DataError: an item is not one of this probe.
        """
        return self.judge(scorer.items, self._matches(scorer))

    def submission(self, scorer: ItemScorer) -> list[Mapping[str, Any]]:
        """Return what was said of each item."""
        return self.rows(scorer.items, self._matches(scorer))

    def _matches(self, scorer: ItemScorer) -> Tensor:
        for item in scorer.items:
            if (len(item.images), len(item.texts)) != (2, self.texts):
                raise DataError(
                    f"{item.row}: '{item.id}' has {len(item.images)} images and {len(item.texts)} texts, and "
                    f"'{self.name}' reads 2 and {self.texts}. Convert the data as its README says."
                )
        return finite(torch.stack(list(scorer.matches(by=self.options.by))), what=self.name)


def mmvp(options: ProbeOptions, *, model: ModelFacts) -> Probe:
    """Return the probe of two images with a statement each."""
    return Probe("mmvp", 2, mmvp_scores, mmvp_rows, options)


def naturalbench(options: ProbeOptions, *, model: ModelFacts) -> Probe:
    """Return the probe of two images with two questions, each of which has two possible answers."""
    return Probe("naturalbench", 4, naturalbench_scores, naturalbench_rows, options)


# --- MMVP -----------------------------------------------------------------------------------------------------------


def mmvp_scores(items: Sequence[Item], matches: Tensor) -> list[Score]:
    """Return for each visual pattern how often both statements find their image, and the average of the nine.

    matches [I, images, texts]; image 0 belongs to text 0, and image 1 to text 1. Where patterns are missing there is
    no average. An image drawn at random for each statement gives 25.

    Raises:
        DataError: an item does not say its pattern.
    """
    own = matches.diagonal(dim1=1, dim2=2)  # [I, texts]
    other = matches.flip(1).diagonal(dim1=1, dim2=2)
    right, tied = (own > other).all(1).double(), (own == other).any(1).double()
    units = numbered([item.id for item in items])
    patterns = [_pattern(item) for item in items]
    found = []
    for name in sorted(set(patterns)):
        rows = torch.tensor([row for row, pattern in enumerate(patterns) if pattern == name])
        ties = float(tied[rows].mean())
        found.append(accuracy_score(name, right[rows], units=units[rows], chance=25.0, ties=ties))
    if len(found) == PATTERNS:
        ties = float(tied.mean())
        found.append(macro_score("average", right, numbered(patterns), units=units, chance=25.0, ties=ties))
    return found


def mmvp_rows(items: Sequence[Item], matches: Tensor) -> list[Mapping[str, Any]]:
    """Return which image each statement of an item was given, as the published script calls them."""
    names = {1: "img1", -1: "img2", 0: "tie"}
    said = (matches[:, 0] - matches[:, 1]).sign().long().tolist()  # [I, texts]
    return [
        {"id": item.id, "pattern": _pattern(item), "pred1": names[one], "pred2": names[other]}
        for item, (one, other) in zip(items, said, strict=True)
    ]


def _pattern(item: Item) -> str:
    if "pattern" not in item.fields:
        raise DataError(f"{item.row}: '{item.id}' has no field 'pattern'. Convert the data as the README says.")
    return item.fields["pattern"]


# --- NaturalBench -----------------------------------------------------------------------------------------------------


def naturalbench_scores(items: Sequence[Item], matches: Tensor) -> list[Score]:
    """Return NaturalBench's four measures of scores [I, images, texts].

    The texts are question 0 with its first and its second answer, then question 1 with both. The answer whose text fits
    the image better is what the model says. Q-Acc: a question is right for both images; I-Acc: an image is right for
    both questions; G-Acc: all four are; Acc: each by itself.

    Raises:
        DataError: an item does not have four answers, or another one than yes, no, A and B.
    """
    said = _said(matches)  # [I, images, questions]
    right, tied = said == _meant(items), said == 0
    units = numbered([item.id for item in items])
    measures = {
        "Q-Acc": (right.all(1), tied.any(1), 25.0),
        "I-Acc": (right.all(2), tied.any(2), 25.0),
        "G-Acc": (right.flatten(1).all(1), tied.flatten(1).any(1), 6.25),
        "Acc": (right.flatten(1), tied.flatten(1), 50.0),
    }
    return [
        accuracy_score(name, hits.double(), units=units, chance=chance, ties=float(ties.double().mean()))
        for name, (hits, ties, chance) in measures.items()
    ]


def naturalbench_rows(items: Sequence[Item], matches: Tensor) -> list[Mapping[str, Any]]:
    """Return each item's answers as the published script reads them: 1 is yes or A, 0 is no or B, -1 is neither."""
    codes = {1: 1, -1: 0, 0: -1}
    said = _said(matches).tolist()
    return [
        {"id": item.id, **{f"q{q}_i{i}": codes[answers[i][q]] for q in (0, 1) for i in (0, 1)}}
        for item, answers in zip(items, said, strict=True)
    ]


def _said(matches: Tensor) -> Tensor:
    """Return 1 (the first answer), -1 (the second) or 0 (a tie), int64 [I, images, questions]."""
    pairs = matches.reshape(len(matches), 2, 2, 2)  # [I, images, questions, answers]
    return (pairs[..., 0] - pairs[..., 1]).sign().long()


def _meant(items: Sequence[Item]) -> Tensor:
    """Return 1 (the first answer is right) or -1, int64 [I, images, questions]; answers stand question by question."""
    meant = torch.empty(len(items), 2, 2, dtype=torch.int64)
    for row, item in enumerate(items):
        answers = [FIRST.get(answer.strip().lower()) for answer in item.answers]
        if len(answers) != 4 or None in answers:
            raise DataError(
                f"{item.row}: '{item.id}' has the answers {list(item.answers)}, and 'naturalbench' reads four of yes, "
                "no, A and B. Convert the data as the README says."
            )
        meant[row] = torch.tensor([1 if answer else -1 for answer in answers]).view(2, 2).T
    return meant
