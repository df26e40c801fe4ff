"""What of a model is frozen, stage by stage: each part and layer, its parameters, and how fast it learns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from renaissance.assemble import Assembly
from renaissance.models.freezing import frozen_parameters
from renaissance.models.one_tower import OneTower
from renaissance.models.parts import is_adapter, layers_of, part_names, still_of
from renaissance.recipe.training import Optimiser
from renaissance.training.optimiser import learning_rates
from renaissance.training.stages import Stage

# prefix: frozen, and nothing before it trains, so there is no graph; partly: some of its parameters train
State = Literal["trained", "partly", "frozen", "prefix"]


@dataclass(frozen=True, slots=True)
class Cell:
    """A layer in one stage: its state, its parameters that train, and their learning rates, as multiples of `lr`."""

    state: State
    trainable: int
    rates: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A layer of a part: its parameters, those of them that are adapters', and what becomes of it in each stage."""

    part: str
    layer: str
    parameters: int
    adapters: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class FreezeMap:
    """Rows by part from input to output; `stages` are told by when they begin."""

    stages: tuple[str, ...]
    rows: tuple[Row, ...]


def freeze_map(assembly: Assembly, stages: Sequence[Stage], optimiser: Optimiser) -> FreezeMap:
    """Return the map of a model, built with or without weights; each shared parameter counts where it comes first."""
    encoder = assembly.encoder
    frozen = [frozen_parameters(encoder, stage.rules) for stage in stages]
    rates = learning_rates(assembly, optimiser)
    seen: set[int] = set()
    rows: list[Row] = []
    for part, layer, named in _layers(assembly):
        own = {name: parameter for name, parameter in named.items() if id(parameter) not in seen}
        seen |= {id(parameter) for parameter in own.values()}
        if own:
            cells = tuple(_cell(assembly, part, layer, own, held, rates) for held in frozen)
            adapters = sum(parameter.numel() for name, parameter in own.items() if is_adapter(name))
            rows.append(Row(part, layer, sum(p.numel() for p in own.values()), adapters, cells))
    return FreezeMap(tuple(stage.label for stage in stages), tuple(rows))


def _layers(assembly: Assembly) -> list[tuple[str, str, dict[str, nn.Parameter]]]:
    """Return part, layer and parameters by their names in the model; what is in no layer comes as 'all' or 'other'."""
    encoder: Any = assembly.encoder
    named = {f"encoder.{name}": parameter for name, parameter in encoder.named_parameters()}
    found: list[tuple[str, str, dict[str, nn.Parameter]]] = []
    for part in part_names(encoder):
        module: nn.Module = getattr(encoder, part)
        layers = layers_of(encoder, part)
        for layer in layers:
            found.append((part, layer.name, _among(named, {id(p) for p in layer.parameters()})))
        found.append((part, "other" if layers else "all", _among(named, {id(p) for p in module.parameters()})))
    found.append(("added", "all", named))
    for name, task in assembly.tasks.items():
        found.append((f"task {name}", "all", {f"tasks.{name}.{key}": p for key, p in task.named_parameters()}))
    return found


def _among(named: Mapping[str, nn.Parameter], ids: Collection[int]) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in named.items() if id(parameter) in ids}


def _cell(
    assembly: Assembly,
    part: str,
    layer: str,
    named: Mapping[str, nn.Parameter],
    frozen: Collection[int],
    rates: Mapping[str, float],
) -> Cell:
    trained = {name: parameter for name, parameter in named.items() if id(parameter) not in frozen}
    if trained:
        state: State = "trained" if len(trained) == len(named) else "partly"
    else:
        state = "prefix" if _without_graph(assembly, part, layer, frozen) else "frozen"
    used = sorted({round(rates[name], 6) for name in trained})
    return Cell(state, sum(parameter.numel() for parameter in trained.values()), tuple(used))


def _without_graph(assembly: Assembly, part: str, layer: str, frozen: Collection[int]) -> bool:
    """Return whether nothing before this frozen layer, nor in it, trains."""
    encoder = assembly.encoder
    if part not in part_names(encoder):
        return False
    if isinstance(encoder, OneTower):
        return layer in ("embeddings", "all")  # types that train are added to what the blocks get
    if part == "fusion":
        before = [still_of(encoder, tower, frozen).whole for tower in ("vision", "text")]
        if not all(before) or encoder.slots is not None:
            return False
    still = still_of(encoder, part, frozen)
    if still.whole or still.blocks is None or layer in ("final", "other"):
        return still.whole
    return layer == "embeddings" or int(layer) < still.blocks
