"""Linear probes: what can be read from a layer by a linear map alone (Alain and Bengio 2016, arXiv 1610.01644).

A ridge regression in closed form, from the standardised mean features of a layer to +1 for a sample's class and -1 for
the others; the class with the greatest value is told. Two thirds of the samples fit it, the rest test it. Beside it
stand the commonest class of the training samples, and the same probe with labels that were shuffled: what it is right
about there is luck.

Letters in shapes: P samples, D channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from renaissance.errors import DataError
from renaissance.explaining.layers import Layers
from renaissance.toolkit.metrics import bootstrap

TEST_SHARE = 1 / 3
# of the features' own variance: enough that more channels than samples have one solution
RIDGE = 0.05
LEAST = 12


@dataclass(frozen=True, slots=True)
class Probe:
    """How often a probe of one layer is right about a target, in percent of the test samples.

    interval: 95%, of the test samples. majority: of the commonest class; shuffled: of a probe of shuffled labels.
    """

    layer: str
    target: str
    accuracy: float
    interval: tuple[float, float]
    majority: float
    shuffled: float
    classes: int
    train: int
    test: int


def probe_layers(layers: Layers, target: str, labels: Sequence[str], *, seed: int = 0) -> list[Probe]:
    """Return a probe of each layer [P, D] for the labels of its samples.

    Raises:
        DataError: there are fewer than twelve samples, or all have one label.
    """
    classes = sorted(set(labels))
    if len(labels) < LEAST or len(classes) < 2:
        raise DataError(
            f"A probe of '{target}' needs at least {LEAST} samples of two classes, and there are {len(labels)} of "
            f"{len(classes)}. Give more --samples."
        )
    numbers = torch.tensor([classes.index(label) for label in labels])
    return [_probe(name, target, features, numbers, len(classes), seed) for name, features in layers.items()]


def _probe(name: str, target: str, features: Tensor, labels: Tensor, classes: int, seed: int) -> Probe:
    random = np.random.default_rng(seed)
    order = torch.from_numpy(random.permutation(len(labels)))
    train, test = order[round(len(order) * TEST_SHARE) :], order[: round(len(order) * TEST_SHARE)]
    shuffled = labels[torch.from_numpy(random.permutation(len(labels)))]
    right = probe_hits(features, labels, train, test, classes)
    commonest = int(torch.bincount(labels[train], minlength=classes).argmax())
    low, high = bootstrap(100 * right.double().numpy(), np.arange(len(test)))
    return Probe(
        layer=name,
        target=target,
        accuracy=_percent(right),
        interval=(low, high),
        majority=_percent(labels[test] == commonest),
        shuffled=_percent(probe_hits(features, shuffled, train, test, classes)),
        classes=classes,
        train=len(train),
        test=len(test),
    )


def probe_hits(features: Tensor, labels: Tensor, train: Tensor, test: Tensor, classes: int) -> Tensor:
    """Return bool [test]: where a probe that was fitted to rows `train` of [P, D] is right about the rows `test`."""
    x = features.double()
    mean, deviation = x[train].mean(0), x[train].std(0)
    x = (x - mean) / torch.where(deviation > 0, deviation, 1.0)
    signs = 2.0 * one_hot(labels, classes).double() - 1
    shift = signs[train].mean(0)
    gram = x[train].T @ x[train] + RIDGE * len(train) * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, x[train].T @ (signs[train] - shift))  # [D, K]
    told: Tensor = (x[test] @ weights + shift).argmax(1)
    return told == labels[test]


def _percent(right: Tensor) -> float:
    return 100 * float(right.double().mean())
