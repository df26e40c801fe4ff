"""AdamW with parameter groups, and its schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

from renaissance.errors import SpecError
from renaissance.models.freezing import Encoder
from renaissance.models.one_tower import OneTower
from renaissance.models.parts import layers_of, parameters_of, part_names, towers_of
from renaissance.models.two_tower import TwoTower
from renaissance.recipe.training import Optimiser
from renaissance.shorthand import parse_part
from renaissance.spec import Part

_NO_DECAY = ("position", "pos_embed", "token_type", "_token", "log_scale", "slots.", ".types.", ".table", ".first")
# what joins the modalities: the fusion head, or what a one-tower model adds above its embeddings
_FUSION = ("encoder.fusion.", "encoder.slots.", "encoder.types.", "encoder.pooler.")


def make_optimiser(model: nn.Module, optimiser: Optimiser) -> AdamW:
    """Return fused AdamW over what is trained: no decay on norms, biases and positions; learning rates by part.

    Raises:
        SpecError: a part that is given a learning rate is none of this model, or has no such layers.
    """
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    multipliers = learning_rates(model, optimiser)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # what is divided among processes (FSDP) and what is not cannot be updated in one call
            divided = isinstance(parameter, DTensor)
            key = optimiser.lr * multipliers[name], _decay(name, parameter, optimiser), divided
            groups.setdefault(key, []).append(parameter)
    settings = [
        {"params": params, "lr": lr, "full_lr": lr, "weight_decay": decay}
        for (lr, decay, _), params in sorted(groups.items(), key=lambda g: g[0])
    ]
    return AdamW(settings, betas=optimiser.betas, eps=optimiser.eps, fused=True)


def check_anything_trains(model: nn.Module) -> None:
    """Refuse a model of which every part is frozen.

    Raises:
        SpecError: nothing is left to train.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise SpecError("Everything is frozen, so there is nothing to train; leave one part trainable.")


# --- learning rates -------------------------------------------------------------------------------------------------


def learning_rates(model: nn.Module, optimiser: Optimiser) -> dict[str, float]:
    """Return the learning rate of each parameter by its name, as a multiple of `optimiser.lr`.

    It is the multiplier of its part (the last one that names it, or that of the fusion or of the heads), times
    `layer_decay` for each layer of its tower from the top.

    Raises:
        SpecError: a part is none of this model, or has no such layers.
    """
    encoder = getattr(model, "encoder", None)
    given: dict[int, float] = {}
    depths: dict[int, int] = {}
    if isinstance(encoder, TwoTower | OneTower):
        given = _given(encoder, optimiser.multipliers)
        depths = _depths(encoder) if optimiser.layer_decay is not None else {}
    decay = 1.0 if optimiser.layer_decay is None else optimiser.layer_decay
    return {
        name: given.get(id(parameter), _multiplier(name, optimiser)) * decay ** depths.get(id(parameter), 0)
        for name, parameter in model.named_parameters()
    }


def _given(encoder: Encoder, multipliers: Mapping[str, float]) -> dict[int, float]:
    """Return the multipliers of parameters by their ids; later ones win."""
    found: dict[int, float] = {}
    for text, multiplier in multipliers.items():
        found |= dict.fromkeys(named_parameters(encoder, text), multiplier)
    return found


def named_parameters(encoder: Encoder, text: str) -> set[int]:
    """Return the ids of the parameters of the part to which `optimiser.multipliers` gives a learning rate.

    Raises:
        SpecError: it is none of this model, or has no such layers.
    """
    parts = _parts(encoder, parse_part(text))
    return {id(parameter) for part in parts for parameter in parameters_of(encoder, part).values()}


def _parts(encoder: Encoder, part: Part) -> list[Part]:
    known = part_names(encoder)
    names = ("vision", "text") if part.name == "both" and isinstance(encoder, TwoTower) else (part.name,)
    odd = next((name for name in names if name not in known), None)
    if odd is not None:
        raise SpecError(f"optimiser.multipliers: '{part}' is no part of this model; it has {', '.join(known)}.")
    return [part.model_copy(update={"name": name}) for name in names]


def _depths(encoder: Encoder) -> dict[int, int]:
    """Return how many layers below the top each parameter of a tower is: 0 for the final norm, 1 for the last block.

    The embeddings that a one-tower model adds lie as deep as its base's own.
    """
    found: dict[int, int] = {}
    for name in towers_of(encoder):
        for depth, layer in enumerate(reversed(layers_of(encoder, name))):
            found |= dict.fromkeys(map(id, layer.parameters()), depth)
    if isinstance(encoder, OneTower):
        found |= dict.fromkeys(map(id, encoder.other.parameters()), len(layers_of(encoder, "encoder")) - 1)
    return found


def _multiplier(name: str, optimiser: Optimiser) -> float:
    if name.startswith("tasks."):
        return optimiser.head_multiplier
    return optimiser.fusion_multiplier if name.startswith(_FUSION) else 1.0


def _decay(name: str, parameter: nn.Parameter, optimiser: Optimiser) -> float:
    plain = parameter.ndim < 2 or any(part in name for part in _NO_DECAY)
    return 0.0 if plain else optimiser.weight_decay


def set_learning_rate(optimiser: torch.optim.Optimizer, share: float) -> None:
    """Give every group this share of its full learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["full_lr"] * share


def factor(step: int, steps: int, warmup: int, decay: str) -> float:
    """Return the share of the full learning rate at update `step`, counted from 0."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    if decay == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return 1.0 if decay == "none" else max(0.0, 1.0 - progress)
