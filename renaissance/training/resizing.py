"""Other image sizes and text lengths for a saved model: position tables resized, and a spec that says so."""

from __future__ import annotations

from typing import Any

import torch

from renaissance.api import Modality
from renaissance.assemble import Assembly
from renaissance.errors import SpecError
from renaissance.plans import OneTowerPlan, Plan, TowerPlan
from renaissance.recipe.start import Surgery
from renaissance.spec import OneTowerSpec, TowerSpec, TwoTowerSpec
from renaissance.toolkit.random import stream_seed

OPTIONS: dict[Modality, str] = {"vision": "image_size", "text": "max_tokens"}


def resize(assembly: Assembly, surgery: Surgery, seed: int) -> tuple[TwoTowerSpec | OneTowerSpec, list[str]]:
    """Fit a model to the sizes that a surgery declares; return its spec, and the tensors whose shape changed.

    Rows that are new are drawn from `seed`.

    Raises:
        SpecError: a part cannot take the size.
    """
    spec, changed = assembly.plan.spec, []
    for modality, option in OPTIONS.items():
        size = getattr(surgery, option)
        if size is not None:
            changed += _resized(assembly.encoder, modality, size, seed)
            spec = _respecified(assembly.plan, spec, modality, option, size)
    return spec, changed


def _resized(encoder: Any, modality: Modality, size: int, seed: int) -> list[str]:
    part = getattr(encoder, modality)
    if not hasattr(part, "resize"):
        raise SpecError(f"The {modality} part of this model takes inputs of one size; leave '{OPTIONS[modality]}' out.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, f"resize {modality}"))
        names = part.resize(size)
    place = next(name for name, module in encoder.named_modules() if module is part)
    return [f"encoder.{place}.{name}" for name in names]


def _respecified(
    plan: Plan | OneTowerPlan, spec: TwoTowerSpec | OneTowerSpec, modality: Modality, option: str, size: int
) -> TwoTowerSpec | OneTowerSpec:
    """Return the spec with the new size where it says the old one."""
    field: str
    if isinstance(plan, Plan):
        field, tower = modality, getattr(plan, modality)
    elif plan.base.entry.modality == modality:
        field, tower = "base", plan.base
    elif plan.donor is not None:
        field, tower = "donor", plan.donor
    else:
        return spec.model_copy(update={option: size})
    return spec.model_copy(update={field: _with_option(getattr(spec, field), tower, option, size)})


def _with_option(spec: TowerSpec, tower: TowerPlan, option: str, size: int) -> TowerSpec:
    if option not in tower.entry.options.model_fields:
        raise SpecError(f"'{tower.name}' has no option '{option}'; leave it out.")
    return spec.model_copy(update={"options": {**spec.options, option: size}})
