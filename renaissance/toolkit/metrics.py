"""Metrics with intervals. Comparisons are strict, so ties count as wrong. Letters: Q queries, N candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from renaissance.api import Outcomes, Score
from renaissance.errors import NonFiniteError

RESAMPLES = 1000
KS = (1, 5, 10)
CHUNK = 4_000_000  # resampled values held at once
# the units [U], and of each sample the sum of its values and their number in each unit [S, U]
Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


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


def numbered(keys: Sequence[str]) -> Tensor:
    """Return int64 [Q]: the place of each key among the distinct ones in their order, whatever that of the queries."""
    places = {key: place for place, key in enumerate(sorted(set(keys)))}
    return torch.tensor([places[key] for key in keys])


def chosen(scores: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return (choice int64 [Q], tied bool [Q]): the best candidate of each query, and whether others score as high.

    scores float [Q, N], target int64 [Q]. Ties never help: of candidates that tie, a wrong one is chosen.
    """
    best = scores == scores.amax(1, keepdim=True)  # [Q, N]
    tied = best.sum(1) > 1
    wrong = best.scatter(1, target.unsqueeze(1), value=False)
    return torch.where(tied, wrong.int().argmax(1), best.int().argmax(1)), tied


def recall_chance(positive: Tensor, k: int) -> float:
    """Return in percent how often a random order has a positive of each query among the first k (hypergeometric)."""
    n = positive.shape[1]
    counts, queries = torch.unique(positive.sum(1), return_counts=True)
    missed = sum(
        int(many) * math.comb(n - int(count), min(k, n)) / math.comb(n, min(k, n))
        for count, many in zip(counts, queries, strict=True)
    )
    return 100 * (1 - missed / len(positive))


@dataclass(frozen=True, slots=True)
class _Recall:
    """Hits of one direction at one k: which queries were answered [Q], and the image that each is resampled with."""

    name: str
    k: int
    hits: Tensor
    units: Tensor
    chance: float
    ties: float


def recalls(by_image: Tensor, by_text: Tensor, positive: Tensor, *, prefix: str = "") -> list[Score]:
    """Return R@k of text retrieval (by_image [V, T]) and image retrieval (by_text [T, V]).

    After these six come the mean of both directions at each k, and the sum of the six (at most 600).
    Captions are resampled with their image: the unit of a text is the first image that it belongs to.
    """
    found: list[_Recall] = []
    text_units = positive.int().argmax(0)
    sides = (("text", by_image, positive, torch.arange(len(positive))), ("image", by_text, positive.T, text_units))
    for side, scores, belongs, units in sides:
        rank, tied = ranks(scores, belongs)
        ties = float(tied.double().mean())
        found += [_Recall(f"{side} R@{k}", k, (rank <= k).double(), units, recall_chance(belongs, k), ties) for k in KS]
    single = [_together(f"{prefix}{recall.name}", [recall]) for recall in found]
    means = [_together(f"{prefix}R@{k}", [recall for recall in found if recall.k == k]) for k in KS]
    return [*single, *means, _together(f"{prefix}sum of R@k", found, times=len(found))]


def _together(name: str, recalls: Sequence[_Recall], *, times: int = 1) -> Score:
    """Return `times` the mean of some recalls; their images are resampled together."""
    samples = [(recall.hits.numpy(), recall.units.numpy()) for recall in recalls]
    low, high = bootstrap_mean(samples)
    percent = 100.0 * times
    return Score(
        name=name,
        value=percent * sum(float(recall.hits.mean()) for recall in recalls) / len(recalls),
        low=percent * low,
        high=percent * high,
        chance=times * sum(recall.chance for recall in recalls) / len(recalls),
        n=sum(len(recall.hits) for recall in recalls),
        units=len(torch.unique(torch.cat([recall.units for recall in recalls]))),
        ties=100 * sum(recall.ties for recall in recalls) / len(recalls),
        outcomes=_outcomes(*_by_unit(samples), scale=percent),
    )


def accuracy_score(name: str, right: Tensor, *, units: Tensor, chance: float, ties: float) -> Score:
    """Return the accuracy over right [Q] or [Q, decisions]; units int64 [Q] are resampled together."""
    samples = [(right.reshape(len(right), -1).mean(1).numpy(), units.numpy())]
    low, high = bootstrap_mean(samples)
    return Score(
        name=name,
        value=100 * float(right.mean()),
        low=100 * low,
        high=100 * high,
        chance=chance,
        n=right.numel(),
        units=len(torch.unique(units)),
        ties=100 * ties,
        outcomes=_outcomes(*_by_unit(samples), scale=100.0),
    )


def macro_score(name: str, right: Tensor, groups: Tensor, *, units: Tensor, chance: float, ties: float) -> Score:
    """Return the mean over groups of the accuracy in each: right [Q], groups and units int64 [Q].

    Units are resampled whole; a group of which a resample has nothing takes no part in its mean.
    """
    kinds, columns = torch.unique(groups, return_inverse=True)
    sums = torch.zeros(len(kinds), dtype=torch.float64).index_add(0, columns, right.double())
    parts = _by_group(right.double().numpy(), columns.numpy(), units.numpy())
    low, high = _macro_interval(parts)
    return Score(
        name=name,
        value=100 * float((sums / columns.bincount()).mean()),
        low=100 * low,
        high=100 * high,
        chance=chance,
        n=len(right),
        units=len(torch.unique(units)),
        ties=100 * ties,
        outcomes=_outcomes(*parts, scale=100.0),
    )


def _macro_interval(parts: Parts, *, seed: int = 0) -> tuple[float, float]:
    """Return the 95% percentile interval of the mean over groups of the mean value in each, resampling units."""
    known, sums, counts = parts[0], parts[1].T, parts[2].T  # [units], [units, groups] twice
    generator = np.random.default_rng(seed)
    means: list[np.ndarray] = []
    at_once = max(1, CHUNK // len(known))
    for start in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - start)
        drawn = generator.integers(len(known), size=(size, len(known))) + len(known) * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * len(known)).reshape(size, len(known)).astype(float)
        totals = times @ counts  # [size, groups]
        here = totals > 0
        means.append((times @ sums / totals.clip(min=1)).sum(1, where=here) / here.sum(1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def bootstrap(values: np.ndarray, units: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Return the 95% percentile interval of the mean of values [Q], resampling whole units [Q].

    Raises:
        ValueError: there are no values.
    """
    return bootstrap_mean([(values, units)], seed=seed)


def bootstrap_mean(samples: Sequence[tuple[np.ndarray, np.ndarray]], *, seed: int = 0) -> tuple[float, float]:
    """Return the 95% percentile interval of the mean of several means, each of values [Q] in units [Q].

    The samples share their units: what is drawn is a unit, with all that each sample has of it.

    Raises:
        ValueError: a sample has no values.
    """
    if not all(len(values) for values, _ in samples):
        raise ValueError("an interval of no values")
    known, sums, counts = _by_unit(samples)
    generator = np.random.default_rng(seed)
    means: list[np.ndarray] = []
    at_once = max(1, CHUNK // sums.size)
    for start in range(0, RESAMPLES, at_once):
        drawn = generator.integers(len(known), size=(min(at_once, RESAMPLES - start), len(known)))
        # a resample may have none of a sample whose units are few: it counts as no hit
        means.append((sums[:, drawn].sum(-1) / counts[:, drawn].sum(-1).clip(min=1)).mean(0))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def _by_unit(samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> Parts:
    """Return what each sample, values [Q] in units [Q], has of each unit."""
    known = np.unique(np.concatenate([units for _, units in samples]))
    rows = [np.searchsorted(known, units) for _, units in samples]
    sums = np.stack([np.bincount(r, v, len(known)) for r, (v, _) in zip(rows, samples, strict=True)])
    return known, sums, np.stack([np.bincount(r, minlength=len(known)) for r in rows])


def _by_group(values: np.ndarray, groups: np.ndarray, units: np.ndarray) -> Parts:
    """Return what each group has of each unit: values, groups and units [Q]."""
    known, places = np.unique(units, return_inverse=True)
    sums = np.zeros((int(groups.max()) + 1, len(known)))
    counts = np.zeros_like(sums)
    np.add.at(sums, (groups, places), values)
    np.add.at(counts, (groups, places), 1)
    return known, sums, counts


def _outcomes(known: np.ndarray, sums: np.ndarray, counts: np.ndarray, *, scale: float) -> Outcomes:
    """Return what each unit adds to `scale` times the mean, over samples or groups, of the mean of each."""
    totals = counts.sum(1, keepdims=True) * len(counts)  # [S, 1]
    weights = (counts / totals).sum(0)  # [U]
    return Outcomes(known.astype(np.int64), scale * (sums / totals).sum(0) / weights, weights)
