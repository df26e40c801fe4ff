"""Probes: how often the true pair of an image and a text scores strictly above false ones. They train nothing.

Letters in shapes: I items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.api import Item, ItemScorer, ModelFacts, Score
from renaissance.builtin.aro_relations import SYMMETRIC
from renaissance.builtin.downstream_options import ProbeOptions
from renaissance.builtin.goals import image_units, item_units
from renaissance.errors import DataError
from renaissance.toolkit.metrics import accuracy_score, finite, macro_score, numbered

FEWEST = 25  # a pair of attributes with fewer items takes no part in ARO's macro accuracy
SUGARCREPE = {"add": ("att", "obj"), "replace": ("att", "obj", "rel"), "swap": ("att", "obj")}
Judge = Callable[[Sequence[Item], Sequence[Tensor]], list[Score]]


class Probe(nn.Module):
    """Compare the scores of an item's images with its texts. judge(items, scores [images, texts] of each) measures."""

    def __init__(self, name: str, judge: Judge, options: ProbeOptions) -> None:
        super().__init__()
        self.name, self.judge, self.options = name, judge, options

    def score(self, scorer: ItemScorer) -> list[Score]:
        """Return the scores.

        Raises:
            NonFiniteError: a score of a pair is NaN or infinite.
            CapabilityError: the model compares no images with texts.
        """
        return self.judge(scorer.items, self._matches(scorer))

    def submission(self, scorer: ItemScorer) -> list[Mapping[str, Any]]:
        """Return the scores of all pairs of each item."""
        matches = zip(scorer.items, self._matches(scorer), strict=True)
        return [{"id": item.id, "scores": each.tolist()} for item, each in matches]

    def _matches(self, scorer: ItemScorer) -> list[Tensor]:
        matches = list(scorer.matches(regions=True, by=self.options.by))
        finite(torch.cat([each.flatten() for each in matches]), what=self.name)
        return matches


def winoground(options: ProbeOptions, *, model: ModelFacts) -> Probe:
    """Return the probe of two images with two captions."""
    return Probe("winoground", winoground_scores, options)


def aro(options: ProbeOptions, *, model: ModelFacts) -> Probe:
    """Return the probe of relations, attributes and order."""
    return Probe("aro", aro_scores, options)


def sugarcrepe(options: ProbeOptions, *, model: ModelFacts) -> Probe:
    """Return the probe of seven kinds of changes."""
    return Probe("sugarcrepe", sugarcrepe_scores, options)


# --- Winoground -----------------------------------------------------------------------------------------------------


def winoground_scores(items: Sequence[Item], matches: Sequence[Tensor]) -> list[Score]:
    """Return the text, image and group score; image 0 belongs to text 0, and image 1 to text 1.

    Raises:
        DataError: an item has not two images and two texts.
    """
    for item, each in zip(items, matches, strict=True):
        if each.shape != (2, 2):
            raise DataError(f"{item.row}: '{item.id}' has not two images with two texts. Prepare the data again.")
    scores = torch.stack(list(matches))  # [I, images, texts]
    own = scores.diagonal(dim1=1, dim2=2)  # [I, images]
    other_text = scores.flip(2).diagonal(dim1=1, dim2=2)
    other_image = scores.flip(1).diagonal(dim1=1, dim2=2)
    text, image = (own > other_text).all(1), (own > other_image).all(1)
    text_ties, image_ties = (own == other_text).any(1), (own == other_image).any(1)
    units = item_units(items)
    return [
        _accuracy(name, right, tied, units, chance)
        for name, right, tied, chance in (
            ("text", text, text_ties, 25.0),
            ("image", image, image_ties, 25.0),
            ("group", text & image, text_ties | image_ties, 100 / 6),
        )
    ]


# --- one image, the true text and false ones ------------------------------------------------------------------------


def aro_scores(items: Sequence[Item], matches: Sequence[Tensor]) -> list[Score]:
    """Return for each subset the accuracy, and for relations and attributes the macro accuracy as ARO defines it.

    Relations: over relations, without the symmetric ones. Attributes: over pairs of them with 25 items or more.
    """
    right, tied, chances = _strictly_best(items, matches)
    units = image_units(items)
    subsets = [item.fields.get("subset") or "order" for item in items]
    found: list[Score] = []
    for subset in sorted(set(subsets)):
        rows = torch.tensor([row for row, name in enumerate(subsets) if name == subset])
        chance = 100 * float(chances[rows].mean())
        found.append(_accuracy(f"{subset} accuracy", right[rows], tied[rows], units[rows], chance))
        groups = _groups([items[row] for row in rows.tolist()])
        kept = [row for row, group in zip(rows.tolist(), groups, strict=True) if group is not None]
        if kept:
            name = f"{subset} macro accuracy"
            found.append(_macro(name, right, tied, chances, units, kept, [g for g in groups if g is not None]))
    return found


def _groups(items: Sequence[Item]) -> list[str | None]:
    """Return the relation or pair of attributes that each item counts for; None where it counts for none."""
    if all("relation" in item.fields for item in items):
        told = [item.fields["relation"] for item in items]
        return [None if relation in SYMMETRIC else relation for relation in told]
    pairs = [item.fields.get("attributes") for item in items]
    counts = Counter(pairs)
    return [pair if counts[pair] >= FEWEST else None for pair in pairs]


def sugarcrepe_scores(items: Sequence[Item], matches: Sequence[Tensor]) -> list[Score]:
    """Return the accuracy of each subset, and the macro accuracy of each group and of all, where all of it is there.

    Raises:
        DataError: an item is of none of the seven subsets.
    """
    right, tied, chances = _strictly_best(items, matches)
    units = image_units(items)
    subsets = [item.fields.get("subset", "") for item in items]
    groups = {group: [f"{group}_{what}" for what in kinds] for group, kinds in SUGARCREPE.items()}
    everything = [subset for names in groups.values() for subset in names]
    odd = next((row for row, subset in enumerate(subsets) if subset not in everything), None)
    if odd is not None:
        raise DataError(
            f"{items[odd].row}: '{items[odd].id}' is of the subset '{subsets[odd]}', and SugarCrepe has: "
            f"{', '.join(everything)}. Prepare the data again."
        )
    found: list[Score] = []
    for name, parts in [*((s, [s]) for s in everything), *groups.items(), ("macro", everything)]:
        kept = [row for row, subset in enumerate(subsets) if subset in parts]
        if set(parts) <= set(subsets):
            found.append(_macro(name, right, tied, chances, units, kept, [subsets[row] for row in kept]))
    return found


def _strictly_best(items: Sequence[Item], matches: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return of each item bool [I]: whether its true text is above all others, whether it ties; and chance [I].

    Raises:
        DataError: an item has not one image with a true text and false ones.
    """
    right, tied, chance = [], [], []
    for item, each in zip(items, matches, strict=True):
        target = 0 if item.target is None else item.target
        if each.shape[0] != 1 or each.shape[1] < 2 or target >= each.shape[1]:
            raise DataError(
                f"{item.row}: '{item.id}' is no image with a true text and false ones. Prepare the data again."
            )
        true, others = each[0, target], torch.cat([each[0, :target], each[0, target + 1 :]])
        right.append(bool((true > others).all()))
        tied.append(bool((true == others).any()))
        chance.append(1 / each.shape[1])
    return torch.tensor(right), torch.tensor(tied), torch.tensor(chance, dtype=torch.float64)


def _accuracy(name: str, right: Tensor, tied: Tensor, units: Tensor, chance: float) -> Score:
    return accuracy_score(name, right.double(), units=units, chance=chance, ties=float(tied.double().mean()))


def _macro(
    name: str,
    right: Tensor,
    tied: Tensor,
    chances: Tensor,
    units: Tensor,
    kept: Sequence[int],
    groups: Sequence[str],
) -> Score:
    rows = torch.tensor(kept)
    chance, ties = 100 * float(chances[rows].mean()), float(tied[rows].double().mean())
    return macro_score(name, right[rows].double(), numbered(groups), units=units[rows], chance=chance, ties=ties)
