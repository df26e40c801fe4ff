"""Metrics with intervals. Comparisons are strict, so ties count as wrong. Letters: Q queries, N candidates."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from renaissance.api import Score
from renaissance.errors import NonFiniteError

RESAMPLES = 1000
KS = (1, 5, 10)
CHUNK = 4_000_000  # resampled values held at once


def finite(scores: Tensor, *, what: str) -> Tensor:
    """Return the scores unchanged.

    Raises:
        NonFiniteError: one of them is NaN or infinite; it is never given a rank.
    """
    bad = int((~torch.isfinite(scores)).sum())
    if bad:
        raise NonFiniteError(
            f"{what}: {bad} of {scores.numel()} scores are NaN or infinite; the model is damaged or diverged."
        )
    return scores


def ranks(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Return (rank int64 [Q], tied bool [Q]) of the best positive of each query.

    scores float [Q, N], positive bool [Q, N]. The rank is 1 + the number of other candidates that score at least as
    high as the best positive; tied: one of them scores exactly as high.
    """
    best = scores.masked_fill(~positive, float("-inf")).amax(1, keepdim=True)
    rivals = scores.masked_fill(positive, float("-inf"))
    return 1 + (rivals >= best).sum(1), (rivals == best).any(1)


def recall_chance(positive: Tensor, k: int) -> float:
    """Return in percent how often a random order has a positive of each query among the first k (hypergeometric)."""
    n = positive.shape[1]
    counts, queries = torch.unique(positive.sum(1), return_counts=True)
    missed = sum(
        int(many) * math.comb(n - int(count), min(k, n)) / math.comb(n, min(k, n))
        for count, many in zip(counts, queries, strict=True)
    )
    return 100 * (1 - missed / len(positive))


def recall_score(name: str, rank: Tensor, k: int, *, units: Tensor, chance: float, ties: float) -> Score:
    """Return recall at k of ranks int64 [Q]; units int64 [Q] says which queries are resampled together."""
    return _score(name, (rank <= k).double(), units, chance=chance, ties=ties)


def recalls(by_image: Tensor, by_text: Tensor, positive: Tensor, *, prefix: str = "") -> list[Score]:
    """Return R@k of text retrieval (by_image [V, T]) and image retrieval (by_text [T, V]), and their mean.

    Captions are resampled with their image: the unit of a text is the first image that it belongs to.
    """
    found: list[Score] = []
    text_units = positive.int().argmax(0)
    sides = (("text", by_image, positive, torch.arange(len(positive))), ("image", by_text, positive.T, text_units))
    for side, scores, belongs, units in sides:
        rank, tied = ranks(scores, belongs)
        ties = float(tied.double().mean())
        found += [
            recall_score(f"{prefix}{side} R@{k}", rank, k, units=units, chance=recall_chance(belongs, k), ties=ties)
            for k in KS
        ]
    return [*found, *(_mean(found, k, prefix) for k in KS)]


def _mean(found: list[Score], k: int, prefix: str) -> Score:
    """Return the mean of both directions at k; its interval takes the two as moving together, so it is wide."""
    both = [score for score in found if score.name.endswith(f"R@{k}") and score.name.split()[-1] == f"R@{k}"]
    mean = {name: sum(getattr(s, name) for s in both) / 2 for name in ("value", "low", "high", "chance", "ties")}
    return Score(name=f"{prefix}R@{k}", n=sum(s.n for s in both), units=min(s.units for s in both), **mean)


def accuracy_score(name: str, right: Tensor, *, units: Tensor, chance: float, ties: float) -> Score:
    """Return the accuracy over right [Q] or [Q, decisions]; units int64 [Q] are resampled together."""
    return _score(name, right, units, chance=chance, ties=ties)


def _score(name: str, values: Tensor, units: Tensor, *, chance: float, ties: float) -> Score:
    low, high = bootstrap(values.reshape(len(values), -1).mean(1).numpy(), units.numpy())
    return Score(
        name=name,
        value=100 * float(values.mean()),
        low=100 * low,
        high=100 * high,
        chance=chance,
        n=values.numel(),
        units=len(torch.unique(units)),
        ties=100 * ties,
    )


def bootstrap(values: np.ndarray, units: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Return the 95% percentile interval of the mean of values [Q], resampling whole units [Q].

    Raises:
        ValueError: there are no values.
    """
    if len(values) == 0:
        raise ValueError("an interval of no values")
    _, of = np.unique(units, return_inverse=True)
    sums, counts = np.bincount(of, weights=values), np.bincount(of)
    generator = np.random.default_rng(seed)
    means: list[np.ndarray] = []
    rows = max(1, CHUNK // len(sums))
    for start in range(0, RESAMPLES, rows):
        drawn = generator.integers(len(sums), size=(min(rows, RESAMPLES - start), len(sums)))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)
