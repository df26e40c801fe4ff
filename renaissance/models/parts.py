"""The parts of an encoder and their layers: one enumeration for freezing, adapters, stores and learning rates.

A part is a tower, the fusion head, or the embeddings that a one-tower model adds. Its layers are "embeddings" (what
comes before the first block), the blocks by their number, and "final" (what follows the last).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from renaissance.errors import SpecError
from renaissance.models.one_tower import OneTower
from renaissance.models.two_tower import TwoTower
from renaissance.spec import Layers, Part

EMBEDDINGS, FINAL = "embeddings", "final"
# where peft keeps what it wraps, and what it adds
_WRAPPED, _ADDED = ".base_layer.", re.compile(r"\.lora_[A-Za-z_]+\.")


@dataclass(frozen=True, slots=True)
class Layer:
    """Modules that are frozen and stored together, and learn at one rate."""

    name: str
    modules: tuple[nn.Module, ...]

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield its parameters; one that two of its modules share comes twice."""
        for module in self.modules:
            yield from module.parameters()


@dataclass(frozen=True, slots=True)
class Still:
    """How much of a tower holds still, from its input on: all of it, or its embeddings and its first `blocks`.

    blocks is None where not even the embeddings do.
    """

    whole: bool
    blocks: int | None


def part_names(encoder: TwoTower | OneTower) -> tuple[str, ...]:
    """Return the parts of an encoder, as rules call them."""
    if isinstance(encoder, TwoTower):
        return ("vision", "text", "fusion")
    return ("encoder", "text" if encoder.modality == "vision" else "vision")


def towers_of(encoder: TwoTower | OneTower) -> tuple[str, ...]:
    """Return those parts of an encoder that are backbones."""
    return ("vision", "text") if isinstance(encoder, TwoTower) else ("encoder",)


def layers_of(encoder: TwoTower | OneTower, name: str) -> tuple[Layer, ...]:
    """Return the layers of a part, from its input to its output; none where it does not list its blocks."""
    part: Any = getattr(encoder, name)
    if isinstance(encoder, TwoTower) and name == "fusion":
        return _head_layers(part)
    if not len(getattr(part, "blocks", ())):
        return ()
    blocks = (Layer(str(index), (block,)) for index, block in enumerate(part.blocks))
    return (Layer(EMBEDDINGS, tuple(part.embeddings)), *blocks, Layer(FINAL, tuple(part.final)))


def _head_layers(head: nn.Module) -> tuple[Layer, ...]:
    """Return the layers of a fusion head that lists them as `layers`; its other parts stand in the order of forward."""
    blocks = getattr(head, "layers", None)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        return ()
    children = list(head.children())
    place = next(index for index, child in enumerate(children) if child is blocks)
    own = nn.ParameterList(parameter for _, parameter in head.named_parameters(recurse=False))
    numbered = (Layer(str(index), (block,)) for index, block in enumerate(blocks))
    return (
        Layer(EMBEDDINGS, (*children[:place], own)),
        *numbered,
        Layer(FINAL, tuple(children[place + 1 :])),
    )


def chosen_layers(encoder: TwoTower | OneTower, name: str, layers: Layers) -> tuple[Layer, ...]:
    """Return the layers of a part that a range names; an open end takes along what lies beyond the blocks.

    Raises:
        SpecError: the part lists no layers, or has not so many.
    """
    known = layers_of(encoder, name)
    what = "head" if name == "fusion" else "tower"
    if not known:
        raise SpecError(f"The {name} {what} does not list its layers; write 'frozen {name}'.")
    depth = len(known) - 2
    ends = [end for end in (layers.start, layers.stop) if end is not None]
    first, last, _ = slice(layers.start, layers.stop).indices(depth)
    if first >= last or not all(-depth <= end <= depth for end in ends):
        fault = "holds none of them" if all(-depth <= end <= depth for end in ends) else "reaches beyond them"
        raise SpecError(f"The {name} {what} has {depth} layers; '{name}{layers}' {fault}.")
    start = 0 if not layers.start else 1 + first
    return known[start : None if layers.stop is None else 1 + last]


# --- parameters -----------------------------------------------------------------------------------------------------


def parameters_of(encoder: TwoTower | OneTower, part: Part) -> dict[str, nn.Parameter]:
    """Return the parameters that are meant, by their names within the part, as they were without adapters.

    Raises:
        SpecError: it has no such layers, or there is no such parameter.
    """
    module: nn.Module = getattr(encoder, part.name)
    found = {plain_name(name): parameter for name, parameter in module.named_parameters()}
    if part.layers is not None:
        chosen = chosen_layers(encoder, part.name, part.layers)
        found = _among(found, {id(parameter) for layer in chosen for parameter in layer.parameters()})
    if part.group is not None:
        found = _of_group(encoder, part, found)
    if part.pattern is not None:
        matching = {name: parameter for name, parameter in found.items() if fnmatchcase(name, part.pattern)}
        if found and not matching:
            raise SpecError(f"'{part}' names no parameter; they are called such as '{_least_common(found)}'.")
        found = matching
    if not found and not part.whole:
        raise SpecError(f"'{part}' names no parameter of this model; leave it out.")
    return found


def _of_group(encoder: TwoTower | OneTower, part: Part, found: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    if part.group == "biases":
        return {name: parameter for name, parameter in found.items() if is_bias(name, parameter)}
    if part.group == "norms":
        module: nn.Module = getattr(encoder, part.name)
        norms = (norm for norm in module.modules() if "norm" in type(norm).__name__.lower())
        return _among(found, {id(p) for norm in norms for p in norm.parameters(recurse=False)})
    layers = layers_of(encoder, part.name)
    if not layers:
        raise SpecError(f"The {part.name} tower does not list its layers; write 'frozen {part.name}'.")
    return _among(found, {id(parameter) for parameter in layers[0].parameters()})


def _among(found: dict[str, nn.Parameter], ids: Collection[int]) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in found.items() if id(parameter) in ids}


def _least_common(names: Collection[str]) -> str:
    """Return the name of a weight inside a block, if there is one, as an example."""
    return max(names, key=lambda name: (name.count("."), name))


def plain_name(name: str) -> str:
    """Return a parameter's name as it was before adapters were put around its module."""
    return name.replace(_WRAPPED, ".")


def is_adapter(name: str) -> bool:
    """Return whether a parameter of this name belongs to an adapter."""
    return _ADDED.search(name) is not None


def is_bias(name: str, parameter: nn.Parameter) -> bool:
    """Return whether a parameter is a bias: of a linear layer, a convolution or a norm, or one of fused projections."""
    leaf = name.rpartition(".")[2]
    return parameter.ndim == 1 and (leaf == "bias" or leaf.endswith("_bias"))


# --- prefixes -------------------------------------------------------------------------------------------------------


def still_of(encoder: TwoTower | OneTower, name: str, frozen: Collection[int]) -> Still:
    """Return how much of a part holds still from its input on, where the parameters with the ids `frozen` do."""
    part: nn.Module = getattr(encoder, name)
    if all(id(parameter) in frozen for parameter in part.parameters()):
        return Still(whole=True, blocks=max(0, len(layers_of(encoder, name)) - 2))
    layers = layers_of(encoder, name)
    listed = {id(parameter) for layer in layers for parameter in layer.parameters()}
    if any(id(parameter) not in listed and id(parameter) not in frozen for parameter in part.parameters()):
        return Still(whole=False, blocks=None)  # which layers read a parameter that none of them holds is not known
    count = 0
    for layer in layers[:-1]:
        if not all(id(parameter) in frozen for parameter in layer.parameters()):
            break
        count += 1
    return Still(whole=False, blocks=count - 1 if count else None)
