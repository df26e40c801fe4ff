from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from renaissance.errors import SpecError
from renaissance.toolkit.layered import LayerState, layer_indices, modules_at, record, run_block, take_blocks


class Scaled(nn.Module):
    """A block that wants something else of the model at each depth, as those of ModernBERT do."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.linear = nn.Linear(4, 4)

    def forward(self, hidden: Tensor, scale: float, *, shift: Tensor) -> Tensor:
        return torch.as_tensor(self.linear(hidden) * scale + shift)


class Library(nn.Module):
    """A library model in small: it computes its blocks' arguments inside its own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Scaled(kind) for kind in ("full", "local", "full"))})
        self.norm = nn.LayerNorm(4)

    def forward(self, values: Tensor) -> Tensor:
        hidden, shift = self.embed(values), values.mean(-1, keepdim=True)
        for block in self._blocks():
            hidden = block(hidden, 2.0 if block.kind == "full" else 0.5, shift=shift)
        return torch.as_tensor(self.norm(hidden))

    def _blocks(self) -> Iterator[Scaled]:
        yield from self.encoder["layer"]  # type: ignore[misc]  # a module list is typed as a module in a module dict


@pytest.fixture
def values() -> Tensor:
    return torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))


def test_each_block_gets_the_arguments_of_its_own_depth(values: Tensor) -> None:
    torch.manual_seed(0)
    model = Library()
    expected = model(values)
    blocks = take_blocks(model, "encoder.layer")
    hidden, calls = record(model, {"values": values})
    state = LayerState(hidden, torch.ones(2, 5, dtype=torch.bool), calls)
    for index, block in enumerate(blocks):
        state = run_block(block, index, state)
    assert [call.args for call in calls] == [(2.0,), (0.5,), (2.0,)]
    assert torch.equal(model.norm(state.hidden), expected)


def test_taking_the_blocks_moves_their_parameters(values: Tensor) -> None:
    model = Library()
    count = len(list(model.parameters()))
    blocks = take_blocks(model, "encoder.layer")
    taken = [parameter for block in blocks for parameter in block.parameters()]
    assert len(taken) == 6
    assert len(list(model.parameters())) == count - 6


def test_one_recording_does_not_see_another(values: Tensor) -> None:
    model = Library()
    take_blocks(model, "encoder.layer")
    first, second = record(model, {"values": values}), record(model, {"values": values[:1]})
    assert (first[0].shape[0], second[0].shape[0]) == (2, 1)
    assert len(first[1]) == len(second[1]) == 3


def test_only_the_modules_that_are_there_are_returned() -> None:
    model = Library()
    assert modules_at(model, ("embed", "gone", "norm")) == (model.embed, model.norm)


def test_negative_layers_count_from_the_end() -> None:
    assert layer_indices((0, -1, 2), 4) == (0, 3, 2)


@pytest.mark.parametrize("layer", [4, -5])
def test_a_layer_that_is_not_there_is_refused(layer: int) -> None:
    with pytest.raises(SpecError, match=rf"Layer {layer} was asked for, but there are 4\. Use -4 to 3"):
        layer_indices((layer,), 4)
