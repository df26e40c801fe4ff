"""AdamW with parameter groups, and its schedule."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import AdamW

from renaissance.errors import SpecError
from renaissance.recipe.training import Optimiser

_NO_DECAY = ("position", "pos_embed", "token_type", "_token", "log_scale", "slots.", ".types.", ".table", ".first")
# what joins the modalities: the fusion head, or what a one-tower model adds above its embeddings
_FUSION = ("encoder.fusion.", "encoder.slots.", "encoder.types.", "encoder.pooler.")


def make_optimiser(model: nn.Module, optimiser: Optimiser) -> AdamW:
    """Return fused AdamW over what is trained: no decay on norms, biases and positions; multipliers by part."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = optimiser.lr * _multiplier(name, optimiser), _decay(name, parameter, optimiser)
            groups.setdefault(key, []).append(parameter)
    settings = [
        {"params": params, "lr": lr, "full_lr": lr, "weight_decay": decay}
        for (lr, decay), params in sorted(groups.items(), key=lambda g: g[0])
    ]
    return AdamW(settings, betas=optimiser.betas, eps=optimiser.eps, fused=True)


def check_anything_trains(model: nn.Module) -> None:
    """Refuse a model of which every part is frozen.

    Raises:
        SpecError: nothing is left to train.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise SpecError("Everything is frozen, so there is nothing to train; leave one part trainable.")


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
