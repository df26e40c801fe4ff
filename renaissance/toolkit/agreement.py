"""How predictions agree with what is right over a whole split: correlations, F1. Letters: Q items.

What is not defined, as a correlation with a constant, is 0: a model that says one thing has learned nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from renaissance.api import Score
from renaissance.toolkit.metrics import RESAMPLES

# (predicted [Q], true [Q]) -> the measure, 1 at best
Measure = Callable[[np.ndarray, np.ndarray], float]


def matthews(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return Matthews' correlation coefficient of labels 0 and 1."""
    hits, misses = float(((predicted == 1) & (true == 1)).sum()), float(((predicted == 0) & (true == 1)).sum())
    alarms, rests = float(((predicted == 1) & (true == 0)).sum()), float(((predicted == 0) & (true == 0)).sum())
    below = (hits + alarms) * (hits + misses) * (rests + alarms) * (rests + misses)
    return (hits * rests - alarms * misses) / float(np.sqrt(below)) if below else 0.0


def f1(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the harmonic mean of precision and recall of label 1."""
    hits = float(((predicted == 1) & (true == 1)).sum())
    both = float((predicted == 1).sum() + (true == 1).sum())
    return 2 * hits / both if both else 0.0


def pearson(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the linear correlation."""
    if (predicted == predicted[0]).all() or (true == true[0]).all():  # a mean can differ from equal values by rounding
        return 0.0
    a, b = predicted - predicted.mean(), true - true.mean()
    below = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / below if below else 0.0


def spearman(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the linear correlation of ranks; equal values share the mean of theirs."""
    return pearson(average_ranks(predicted), average_ranks(true))


def determination(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return R squared: what is left of the variance is 1 minus it; the mean itself has 0, and worse is below."""
    spread = float(((true - true.mean()) ** 2).sum())
    return 1.0 - float(((true - predicted) ** 2).sum()) / spread if spread else 0.0


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks float [Q] from 1 on; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (counts.cumsum() - (counts - 1) / 2)[place]
    return ranks


def agreement_score(
    name: str, measure: Measure, predicted: Tensor, true: Tensor, *, units: Tensor, chance: float, ties: float
) -> Score:
    """Return a measure over all items in percent, with its interval; units int64 [Q] are resampled whole."""
    said, right, kept = predicted.double().numpy(), true.double().numpy(), units.numpy()
    low, high = _interval(measure, said, right, kept)
    return Score(
        name=name,
        value=100 * measure(said, right),
        low=100 * low,
        high=100 * high,
        chance=chance,
        n=len(said),
        units=len(np.unique(kept)),
        ties=100 * ties,
    )


def _interval(
    measure: Measure, said: np.ndarray, right: np.ndarray, units: np.ndarray, *, seed: int = 0
) -> tuple[float, float]:
    order = np.argsort(units, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(units[order])) + 1)
    alone = len(members) == len(order)
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(len(members), size=len(members))
        rows = order[drawn] if alone else np.concatenate([members[unit] for unit in drawn])
        found.append(measure(said[rows], right[rows]))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)
