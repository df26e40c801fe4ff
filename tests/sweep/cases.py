"""One architecture of the sweep, and what it must pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch

from renaissance.api import BackboneEntry, Modality, VisionInput
from renaissance.components import checked_options, described
from renaissance.errors import CapabilityError, SpecError
from renaissance.registry import default_registry, load_factory
from renaissance.testing.backbones import check_backbone


@dataclass(frozen=True)
class Case:
    """An architecture, at a small size from config alone. refused: a part of the error that refuses it."""

    name: str
    modality: Modality
    family: str
    options: Mapping[str, Any] = field(default_factory=dict)
    refused: str | None = None


def run(case: Case) -> tuple[str, ...]:
    """Build the case with random weights and check it; return the names of the checks that it passed.

    A case that is to be refused must raise a typed error that says why, and passes none.
    """
    if case.refused is None:
        return _checked(case)
    seen = _refusal(case)
    assert case.refused in seen, f"{case.name} is to be refused with {case.refused!r}, and: {seen}"
    return ()


def _refusal(case: Case) -> str:
    """Return why the case is refused, or that it is not."""
    try:
        return f"it passed {', '.join(_checked(case))}"
    except (SpecError, CapabilityError) as error:
        return str(error)


def _checked(case: Case) -> tuple[str, ...]:
    """Build by name and options, as a spec would, and check."""
    library, _, model = case.name.partition(":")
    component = default_registry().find("backbone", library, case.modality)
    entry = cast(BackboneEntry, component.entry)
    named = {"model": model, "revision": None} if entry.library else {}
    options = checked_options(entry, {**case.options, **named}, of=case.name)
    facts, factory = described(component, options), load_factory(entry)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = factory(options, weights="random", saved=None)
        randomise(backbone)
        focus(backbone)
        settle(backbone, case.modality)
    rebuild = partial(_rebuilt, factory, options)
    return check_backbone(backbone, facts, modality=case.modality, rebuild=rebuild)


def _rebuilt(factory: Any, options: Any, saved: Any) -> Any:
    return factory(options, weights="none", saved=saved)


@torch.no_grad()
def randomise(backbone: torch.nn.Module) -> None:
    """Move every parameter a little: zeros and tiny scales of an initialisation would hide wrong wiring."""
    for parameter in backbone.parameters():
        if parameter.is_floating_point():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)


@torch.no_grad()
def settle(backbone: torch.nn.Module, modality: Modality) -> None:
    """Let batch norms see images once: with the statistics that they start from, a deep net's signal dies out."""
    norms = [module for module in backbone.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    if modality != "vision" or not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    size: tuple[int, int] = cast(Any, backbone).processor.image_size
    spots = torch.rand(8, 3, 8, 8)  # noise alone, which convolutions blur away, would leave too small a variance
    noise = torch.rand(8, 3, *size)
    images = (torch.nn.functional.interpolate(spots, size=size) + noise) / 2
    backbone.train()(VisionInput((images * 255).to(torch.uint8)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def focus(backbone: torch.nn.Module) -> None:
    """Let convolutions look at their middle most, as trained ones do: random ones look anywhere, grid or not."""
    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size[0] % 2 and module.kernel_size[0] > 1:
            rows, columns = (torch.arange(size) - size // 2 for size in module.kernel_size)
            module.weight.mul_(torch.exp(-3.0 * (rows[:, None].square() + columns.square())))
        if isinstance(module, torch.nn.Conv2d):  # against the small variances, a norm's epsilon would be large
            module.weight.div_(module.weight.flatten(1).norm(dim=1).mean())
