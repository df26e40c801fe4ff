"""One architecture of the sweep, and what it must pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch

from renaissance.api import BackboneEntry, Modality
from renaissance.components import checked_options, described
from renaissance.errors import CapabilityError, SpecError
from renaissance.registry import default_registry, load_factory
from renaissance.testing.backbones import check_backbone
from renaissance.testing.weights import focus, randomise, settle


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
