"""What became of each tensor of an encoder when it was built: copied from a backbone's weights, resized, or new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class TransferReport:
    """Names of the encoder's tensors with the number of their elements.

    copied: as the backbone's weights have them. resized: position tables, fitted to another size. new: the rest.
    """

    copied: Mapping[str, int]
    resized: Mapping[str, int]
    new: Mapping[str, int]

    def __str__(self) -> str:
        """Return one line a kind: tensors, elements, and the names of what is not copied."""
        lines = []
        for kind in ("copied", "resized", "new"):
            tensors: Mapping[str, int] = getattr(self, kind)
            names = "" if kind == "copied" or not tensors else f": {', '.join(tensors)}"
            lines.append(f"{kind}: {len(tensors)} tensors, {sum(tensors.values()):,} elements{names}")
        return "\n".join(lines)


def transfer_report(encoder: nn.Module, pretrained: Mapping[str, bool], renewed: frozenset[int]) -> TransferReport:
    """Return what became of each parameter of an encoder.

    pretrained: for each submodule that holds a backbone, whether its weights were read. renewed: ids of parameters
    that were given new weights after that.
    """
    found: dict[str, dict[str, int]] = {"copied": {}, "resized": {}, "new": {}}
    for name, parameter in encoder.named_parameters():
        kind = "new"
        for place, read in pretrained.items():
            if read and name.startswith(f"{place}.") and id(parameter) not in renewed:
                backbone: Any = encoder.get_submodule(place)
                resized = getattr(backbone, "resized", ())
                kind = "resized" if name.removeprefix(f"{place}.") in resized else "copied"
        found[kind][name] = parameter.numel()
    return TransferReport(**found)
