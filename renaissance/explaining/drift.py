"""How far a model has moved from the one that it started from: the weights of each layer, and what it makes of samples.

Weights: the norm of the difference over the norm of the first weights. Representations: 1 - CKA, which does not see
rotations, and the mean cosine of what a sample is now with what it was. Equal bits give exactly 0, 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from renaissance.assemble import Assembly, Encoder
from renaissance.errors import CapabilityError
from renaissance.explaining.layers import Layers
from renaissance.explaining.similarity import cka
from renaissance.models.parts import layers_of, part_names

WHOLE = "all"


@dataclass(frozen=True, slots=True)
class Drift:
    """Of one layer. weights: relative L2; cka: 1 - CKA; cosine: of the samples' means; None where there is no such."""

    layer: str
    weights: float | None
    cka: float | None
    cosine: float | None


def drift(now: Assembly, start: Assembly, samples: tuple[Layers, Layers] | None = None) -> list[Drift]:
    """Return the drift of each layer, in the order of the model. samples: the layers of both models on the same ones.

    Raises:
        CapabilityError: the two models are not built alike.
    """
    weights = weight_drift(now.encoder, start.encoder)
    moved = {} if samples is None else representation_drift(*samples)
    names = list(dict.fromkeys((*weights, *moved)))
    return [Drift(name, weights.get(name), *moved.get(name, (None, None))) for name in names]


def weight_drift(now: Encoder, start: Encoder) -> dict[str, float | None]:
    """Return the relative L2 distance of the weights of each layer, None of one without any.

    A part that does not list its layers is one, `all`.

    Raises:
        CapabilityError: the two models are not built alike.
    """
    mine, theirs = _weights(now), _weights(start)
    odd = next((name for name in (*mine, *theirs) if _shapes(mine.get(name)) != _shapes(theirs.get(name))), None)
    if odd is not None:
        raise CapabilityError(
            f"The weights of '{odd}' differ in number or shape between the two models, so how far they moved means "
            "nothing. Compare a model with the one that it started from, of the same spec."
        )
    return {name: relative_distance(mine[name], theirs[name]) if mine[name] else None for name in mine}


def _weights(encoder: Encoder) -> dict[str, list[Tensor]]:
    found: dict[str, list[Tensor]] = {}
    for part in part_names(encoder):
        layers = layers_of(encoder, part)
        module: nn.Module = getattr(encoder, part)
        for layer in layers:
            found[f"{part}.{layer.name}"] = [parameter.detach() for parameter in layer.parameters()]
        if not layers:
            found[f"{part}.{WHOLE}"] = [parameter.detach() for parameter in module.parameters()]
    return found


def _shapes(tensors: list[Tensor] | None) -> list[torch.Size]:
    return [tensor.shape for tensor in tensors or ()]


def relative_distance(now: Iterable[Tensor], start: Iterable[Tensor]) -> float:
    """Return the norm of the difference of all tensors together, over that of the first ones; 0 for equal ones."""
    moved = norm = 0.0
    for one, other in zip(now, start, strict=True):
        moved += float((one.double() - other.double()).square().sum())
        norm += float(other.double().square().sum())
    if moved == 0:
        return 0.0
    return math.sqrt(moved / norm) if norm else math.inf


def representation_drift(now: Layers, start: Layers) -> dict[str, tuple[float, float]]:
    """Return (1 - CKA, mean cosine) of each layer that both have with the same width."""
    found: dict[str, tuple[float, float]] = {}
    for name, features in now.items():
        before = start.get(name)
        if before is None or before.shape != features.shape:
            continue
        if torch.equal(features, before):
            found[name] = (0.0, 1.0)
            continue
        cosine = nn.functional.cosine_similarity(features.double(), before.double()).mean()
        found[name] = (1 - cka(features, before), float(cosine))
    return found
