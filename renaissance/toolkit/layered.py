"""Take the blocks of a library's model out of its forward, so that they can be run one by one.

A library model computes the arguments of its blocks (masks, rotary and relative positions, which may differ from
block to block) inside its own forward. `take_blocks` puts a `Recorder` in the place of each block; running the model
then returns quickly what each block would have been called with, and the blocks run outside of it. No line of the
library's forward is written again here, so a new version of the library cannot drift away from us.

Letters in shapes: B inputs, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor, nn

from renaissance.api import Features, LayeredBackbone
from renaissance.errors import SpecError


@dataclass(frozen=True, slots=True)
class Call:
    """What a block is called with beside the hidden state."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LayerState:
    """What flows from block to block: hidden [B, N, D], mask bool [B, N] (True: real), and the call of each block."""

    hidden: Tensor
    mask: Tensor
    calls: tuple[Call, ...]


_TAPE: ContextVar[list[tuple[Tensor, Call]]] = ContextVar("tape")


class Recorder(nn.Module):
    """Stands in a library model for one of its blocks: notes the call, and returns the hidden state as it came."""

    def __init__(self, block: nn.Module, *, pair: bool) -> None:
        """Stand in for `block`; `pair`: its callers expect (hidden state, attention)."""
        super().__init__()
        self.pair = pair
        for name, value in vars(block).items():  # some models ask a block for its kind (ModernBERT)
            if not name.startswith("_") and isinstance(value, (str, int, float)) and name != "training":
                setattr(self, name, value)

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return hidden [B, N, D]."""
        _TAPE.get().append((hidden, Call(args, kwargs)))
        return (hidden, None) if self.pair else hidden


def take_blocks(model: nn.Module, path: str, *, pair: bool = False) -> Sequence[nn.Module]:
    """Move the blocks in the module list at `path` out of `model`, recorders into it; return them as a module list."""
    blocks = list(cast(nn.ModuleList, model.get_submodule(path)))
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.ModuleList(Recorder(block, pair=pair) for block in blocks))
    return cast("Sequence[nn.Module]", nn.ModuleList(blocks))


def modules_at(model: nn.Module, paths: Sequence[str]) -> Sequence[nn.Module]:
    """Return the submodules at those of the paths that this model has."""
    present = dict(model.named_modules())
    return tuple(present[path] for path in paths if path in present)


def record(model: nn.Module, inputs: Mapping[str, Any]) -> tuple[Tensor, tuple[Call, ...]]:
    """Return the hidden state before the first block [B, N, D], and the call of each block."""
    tape: list[tuple[Tensor, Call]] = []
    token = _TAPE.set(tape)
    try:
        model(**inputs)
    finally:
        _TAPE.reset(token)
    return tape[0][0], tuple(call for _, call in tape)


def run_block(block: nn.Module, index: int, state: LayerState) -> LayerState:
    """Return the state after block `index`."""
    call = state.calls[index]
    output = block(state.hidden, *call.args, **call.kwargs)
    return replace(state, hidden=output[0] if isinstance(output, tuple) else output)


def fold(backbone: LayeredBackbone, inputs: Any, layers: Sequence[int]) -> Features:
    """Encode by `embed`, every `step`, and `finish`, keeping the outputs [B, N, D] of the `layers` asked for.

    Raises:
        SpecError: there is no such layer.
    """
    wanted = layer_indices(layers, len(backbone.blocks))
    kept: dict[int, Tensor] = {}
    state = backbone.embed(inputs)
    for index in range(len(backbone.blocks)):
        state = backbone.step(index, state)
        if index in wanted:
            kept[index] = state.hidden
    return replace(backbone.finish(state), layers=tuple(kept[index] for index in wanted))


def layer_indices(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Return the layers as indices from 0, negative ones counted from the end.

    Raises:
        SpecError: there is no such layer.
    """
    for layer in layers:
        if not -depth <= layer < depth:
            raise SpecError(f"Layer {layer} was asked for, but there are {depth}. Use {-depth} to {depth - 1}.")
    return tuple(layer % depth for layer in layers)
