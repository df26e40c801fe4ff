"""What became of each tensor of an encoder when it was built: copied from a backbone's weights, resized, or new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

from renaissance.plans import TowerPlan


@dataclass(frozen=True, slots=True)
class TransferReport:
    """Names of the encoder's tensors with the number of their elements.

    copied: as the backbone's weights have them. resized: position tables, fitted to another size. shuffled: the
    backbone's weights in another order. new: the rest.
    """

    copied: Mapping[str, int]
    resized: Mapping[str, int]
    shuffled: Mapping[str, int]
    new: Mapping[str, int]

    def __str__(self) -> str:
        """Return one line a kind: tensors, elements, and the names of what is not copied."""
        lines = []
        for kind in (field.name for field in fields(self)):
            tensors: Mapping[str, int] = getattr(self, kind)
            names = "" if kind == "copied" or not tensors else f": {', '.join(tensors)}"
            if tensors or kind != "shuffled":
                lines.append(f"{kind}: {len(tensors)} tensors, {sum(tensors.values()):,} elements{names}")
        return "\n".join(lines)


def transfer_report(encoder: nn.Module, towers: Mapping[str, TowerPlan], renewed: frozenset[int]) -> TransferReport:
    """Return what became of each parameter of an encoder.

    towers: for each submodule that holds a backbone, its plan. renewed: ids of parameters that were given new weights
    after that.
    """
    found: dict[str, dict[str, int]] = {field.name: {} for field in fields(TransferReport)}
    kinds: dict[int, str] = {}
    for place, plan in towers.items():
        backbone: Any = encoder.get_submodule(place)
        embeddings = {id(p) for module in getattr(backbone, "embeddings", ()) for p in module.parameters()}
        resized = getattr(backbone, "resized", ())
        for name, parameter in backbone.named_parameters():
            start = plan.embeddings if id(parameter) in embeddings else plan.weights
            read = "resized" if name in resized else "copied"
            kinds[id(parameter)] = {"pretrained": read, "shuffled": "shuffled", "random": "new"}[start]
    for name, parameter in encoder.named_parameters():
        kind = "new" if id(parameter) in renewed else kinds.get(id(parameter), "new")
        found[kind][name] = parameter.numel()
    return TransferReport(**found)
