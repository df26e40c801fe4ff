"""Where the spread of a score comes from: the pretraining seed, the fine-tuning seed within it, the items.

Every run of an arm is measured on the same items, so these are crossed with the seeds, not nested in them: what makes
an item hard for all runs is a component of its own. Were it left in the residual, the spread of the seeds, which is
what exceeds the residual, would come out too small, or below zero.

    outcome[p, f, u] = mean + seed[p] + fine[p, f] + item[u] + (seed x item)[p, u] + residual[p, f, u]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from renaissance.errors import StudyError
from renaissance.studies.statistics.arrays import Floats, checked_array, json_facts

ONE_FINE = "One fine-tuning seed: its part is in those of the pretraining seed and of seed x item."
SEED, FINE, ITEM, SEED_ITEM, RESIDUAL = "pretraining seed", "fine-tuning seed", "item", "seed x item", "residual"


@dataclass(frozen=True, slots=True)
class VarianceSplit:
    """Variance components of the outcome of one item in one run.

    Attributes:
        components: the variance by source; with one fine-tuning seed those that it would tell apart are missing.
        seeds: pretraining seeds of the design.
        fine: fine-tuning seeds in each.
        items: items of each run.
        below_zero: the sources whose estimates were below 0.
        notes: what a reader must know, such as what these estimates were.
    """

    components: Mapping[str, float]
    seeds: int
    fine: int
    items: int
    below_zero: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def shares(self) -> dict[str, float]:
        """The components as shares of their sum; all 0 if nothing varies."""
        total = sum(self.components.values())
        return {source: variance / total if total else 0.0 for source, variance in self.components.items()}

    def of_mean(self, *, seeds: int, fine: int, items: int) -> dict[str, float]:
        """Return what each source would add to the variance of the score of an arm with other numbers of each.

        Raises:
            StudyError: a number is below 1, or `fine` is not 1 and the design had one fine-tuning seed.
        """
        if min(seeds, fine, items) < 1:
            raise StudyError(f"A design of {seeds} x {fine} x {items} has no outcome: give numbers from 1 up.")
        if self.fine == 1 and fine != 1:
            raise StudyError(f"What {fine} fine-tuning seeds would change is not known: the design had one; run two.")
        count = {SEED: seeds, FINE: seeds * fine, ITEM: items, SEED_ITEM: seeds * items, RESIDUAL: seeds * fine * items}
        return {source: variance / count[source] for source, variance in self.components.items()}

    def facts(self) -> dict[str, Any]:
        """Return the fields and the shares, for JSON."""
        return {**json_facts(asdict(self)), "shares": self.shares}


def split_variance(outcomes: ArrayLike) -> VarianceSplit:
    """Split the variance of outcomes [P, F, U] by the mean squares of the analysis of variance.

    With F = 1 the fine-tuning seed is part of the pretraining seed, and the residual of seed x item. Outcomes may be
    those of one arm, or differences of two arms on the same seeds and items. The estimates have no bias before those
    below 0 are set to 0, which `notes` tells of; with few seeds that of the pretraining seed is very uncertain.

    Raises:
        StudyError: an outcome is not finite, or there are fewer than two pretraining seeds or items.
    """
    array = checked_array(outcomes, "The array of outcomes", axes=3)
    seeds, fine, items = array.shape
    if items < 2:
        raise StudyError("The outcomes are of one item: without a second one nothing is known of the spread of items.")
    raw = _components(array)
    below_zero = tuple(source for source, value in raw.items() if value < 0)
    notes = [f"The estimate for {source} was {raw[source]:.3g}; it is reported as 0." for source in below_zero]
    if fine == 1:
        notes.append(ONE_FINE)
    components = {source: max(0.0, value) for source, value in raw.items()}
    return VarianceSplit(components, seeds, fine, items, below_zero, tuple(notes))


def _components(array: Floats) -> dict[str, float]:
    """Return the estimates by source, which may be below 0: mean squares, solved for what they expect."""
    seeds, fine, items = array.shape
    grand, by_run, by_seed, by_item = array.mean(), array.mean(axis=2), array.mean(axis=(1, 2)), array.mean(axis=(0, 1))
    by_pair = array.mean(axis=1)  # [P, U]
    crossed = by_pair - by_seed[:, None] - by_item + grand
    ms_seed = fine * items * _squares(by_seed - grand) / (seeds - 1)
    ms_item = seeds * fine * _squares(by_item - grand) / (items - 1)
    ms_crossed = fine * _squares(crossed) / ((seeds - 1) * (items - 1))
    of_item = (ms_item - ms_crossed) / (seeds * fine)
    if fine == 1:
        return {SEED: (ms_seed - ms_crossed) / items, ITEM: of_item, SEED_ITEM: ms_crossed}
    rest = array - by_pair[:, None] - by_run[..., None] + by_seed[:, None, None]
    ms_fine = items * _squares(by_run - by_seed[:, None]) / (seeds * (fine - 1))
    ms_rest = _squares(rest) / (seeds * (fine - 1) * (items - 1))
    return {
        SEED: (ms_seed - ms_fine - ms_crossed + ms_rest) / (fine * items),
        FINE: (ms_fine - ms_rest) / items,
        ITEM: of_item,
        SEED_ITEM: (ms_crossed - ms_rest) / fine,
        RESIDUAL: ms_rest,
    }


def _squares(deviations: Floats) -> float:
    return float(np.square(deviations).sum())
