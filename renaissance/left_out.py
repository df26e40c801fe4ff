"""Towers that a saved model leaves out, as they are published elsewhere and were never trained: it names them instead.

A tower is named by where it comes from and by the SHA-256 of its tensors, so that a loaded model has exactly it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

import renaissance
from renaissance.api import Modality
from renaissance.assemble import Assembly
from renaissance.errors import ModelFileError, SpecError
from renaissance.manifest import REPO, TOWERS
from renaissance.models.two_tower import holds_still
from renaissance.plans import AnyPlan, Plan, TowerPlan
from renaissance.saved_config import SavedSource

# libraries whose option `revision` takes a commit; that of open-clip names weights
_BY_COMMIT = frozenset({"transformers", "timm"})


def sources(assembly: Assembly) -> dict[Modality, SavedSource]:
    """Return the towers that can be left out, those that are pretrained and wholly frozen, with where they come from.

    Raises:
        SpecError: there are none.
    """
    plan = assembly.plan
    found: dict[Modality, SavedSource] = {}
    if isinstance(plan, Plan):
        for tower, planned in zip(TOWERS, (plan.vision, plan.text), strict=True):
            backbone = getattr(assembly.encoder, tower)
            if planned.start == "pretrained" and holds_still(backbone):
                found[tower] = _source(planned, plan, backbone)
    if not found:
        raise SpecError(
            "trained_only leaves towers out that are pretrained and wholly frozen, and this model has none. Leave "
            "trained_only away; or train one with 'frozen vision', 'frozen text' or 'frozen both'."
        )
    return found


def _source(planned: TowerPlan, plan: Plan, backbone: Any) -> SavedSource:
    own = f"renaissance-vl {renaissance.__version__}"
    return SavedSource(
        name=planned.name,
        repository=repository_of(planned),
        distribution=plan.plugins.get(planned.plugin, own),
        revision=backbone.revision,
        digest=digest(backbone),
    )


def repository_of(tower: TowerPlan) -> str | None:
    """Return the repository of the Hub that has a backbone's weights, None where its name does not tell it."""
    published, model = getattr(tower.options, "published", None), str(getattr(tower.options, "model", ""))
    library = tower.name.partition(":")[0]
    if published is not None:
        model = published.model or ""
    elif library == "timm" and "." in model:  # without the tag of its weights it may be any
        model = f"timm/{model}"
    return model if library != "open-clip" and REPO.fullmatch(model) else None


def pinned(plan: AnyPlan, named: Mapping[Modality, SavedSource]) -> AnyPlan:
    """Return a plan that builds the towers which were left out from their commits, where their names can tell one."""
    for tower, source in named.items():
        planned = getattr(plan, tower, None)
        library = "" if planned is None else planned.name.partition(":")[0]
        if planned is not None and library in _BY_COMMIT and source.revision is not None:
            options = planned.options.model_copy(update={"revision": source.revision})
            plan = replace(plan, **{tower: replace(planned, options=options)})
    return plan


def names_of(assembly: nn.Module, towers: Iterable[str]) -> frozenset[str]:
    """Return the names in a model's state of the tensors of these towers, those that other parts share included."""
    state = assembly.state_dict(keep_vars=True)
    prefixes = tuple(f"encoder.{tower}." for tower in towers)
    theirs = {id(tensor) for name, tensor in state.items() if name.startswith(prefixes)}
    return frozenset(name for name, tensor in state.items() if id(tensor) in theirs)


def digest(tower: nn.Module) -> str:
    """Return the SHA-256 over names, types, shapes and values of a tower's tensors."""
    found = hashlib.sha256()
    for name, tensor in sorted(tower.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_sources(assembly: Assembly, named: Mapping[Modality, SavedSource]) -> None:
    """Check that the towers which were built in place of those left out are the same.

    Raises:
        ModelFileError: one is another.
    """
    for tower, source in named.items():
        if digest(getattr(assembly.encoder, tower)) != source.digest:
            at = f" at the commit {source.revision}" if source.revision else ""
            raise ModelFileError(
                f"The {tower} tower '{source.name}'{at} of {source.distribution}, which this model names in place of "
                f"holding it, had other weights than '{source.name}' has here (their SHA-256 differs). Use that "
                "version, or save the model with all its weights."
            )
