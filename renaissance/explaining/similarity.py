"""Linear CKA (Kornblith et al. 2019, arXiv 1905.00414) with the unbiased estimator of HSIC, in minibatches.

HSIC of two Gram matrices K and L of n samples, their diagonals set to 0 (Song et al. 2012), and CKA by sums over
batches (Nguyen et al. 2021, arXiv 2010.15327):

    hsic(K, L) = (tr(K L) + sum(K) sum(L) / ((n - 1)(n - 2)) - 2 sum(K L) / (n - 2)) / (n (n - 3))
    cka(X, Y)  = sum hsic(X X', Y Y') / sqrt(sum hsic(X X', X X') sum hsic(Y Y', Y Y'))

It is 1 of a representation with itself, and stays the same if one is rotated, scaled or moved. The estimator does not
grow with the number of channels as the biased one does; of unrelated representations it lies around 0, also below it.

Letters in shapes: P samples, D and E channels, J and K layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from renaissance.errors import DataError

LEAST = 4  # samples: below, the estimator does not exist
BATCH = 256


def hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741 - as it is called in all papers
    """Return the unbiased estimate of HSIC of Gram matrices [P, P], a number."""
    count = len(k)
    k, l = (gram - torch.diag(gram.diagonal()) for gram in (k, l))  # noqa: E741
    total = (k * l).sum() + k.sum() * l.sum() / ((count - 1) * (count - 2)) - 2 * (k.sum(0) @ l.sum(0)) / (count - 2)
    return total / (count * (count - 3))


def cka(one: Tensor, other: Tensor, *, batch: int = BATCH) -> float:
    """Return the linear CKA of representations [P, D] and [P, E] of the same samples; NaN where one is constant.

    Raises:
        DataError: there are fewer than four samples.
    """
    if len(one) < LEAST:
        raise DataError(f"CKA needs at least {LEAST} samples, and there are {len(one)}. Give more --samples.")
    both, first, second = torch.zeros(3, dtype=torch.float64)
    batch = max(batch, LEAST)
    for start in range(0, len(one) - LEAST + 1, batch):
        rows = slice(start, start + batch)
        # centred only for the numbers' sake: the estimator is the same
        x, y = (_centred(features[rows].double()) for features in (one, other))
        k, l = x @ x.T, y @ y.T  # noqa: E741
        both, first, second = both + hsic(k, l), first + hsic(k, k), second + hsic(l, l)
    scale = float(first) * float(second)
    return float(both) / math.sqrt(scale) if float(first) > 0 and float(second) > 0 else math.nan


def cka_matrix(rows: Mapping[str, Tensor], columns: Mapping[str, Tensor]) -> list[list[float]]:
    """Return the CKA of each of the layers `rows` with each of `columns`, [J, K]."""
    return [[cka(one, other) for other in columns.values()] for one in rows.values()]


def _centred(features: Tensor) -> Tensor:
    return features - features.mean(0)
