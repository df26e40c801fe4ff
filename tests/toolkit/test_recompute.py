"""What is computed again in the backward pass in place of being kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.cost.counting import SavedBytes
from renaissance.toolkit.recompute import not_keeping_between, run

Layer = Callable[[Tensor], Tensor]


@pytest.fixture
def parts() -> tuple[nn.Linear, nn.Linear, Tensor]:
    torch.manual_seed(0)
    return nn.Linear(8, 32), nn.Linear(32, 8), torch.randn(3, 5, 8)


def as_usual(inner: nn.Linear, outer: nn.Linear) -> Layer:
    return lambda values: outer(F.gelu(inner(values)))  # type: ignore[no-any-return]


def without(inner: nn.Linear, outer: nn.Linear) -> Layer:
    return lambda values: not_keeping_between(F.gelu, outer, inner(values))


def learned(layer: Layer, inner: nn.Linear, outer: nn.Linear, values: Tensor) -> list[Tensor]:
    given = values.clone().requires_grad_()
    output = layer(given)
    return [output, *torch.autograd.grad(output.square().sum(), [given, *inner.parameters(), *outer.parameters()])]


def saved(layer: Layer, inner: nn.Linear, outer: nn.Linear, values: Tensor) -> int:
    count = SavedBytes(nn.ModuleList([inner, outer]))
    watch: AbstractContextManager[None] = count.watch()
    with watch:
        layer(values)
    return count.total


def test_values_and_gradients_are_the_same_bit_for_bit(parts: tuple[nn.Linear, nn.Linear, Tensor]) -> None:
    inner, outer, values = parts
    expected, found = (learned(make(inner, outer), inner, outer, values) for make in (as_usual, without))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_what_is_between_is_not_kept(parts: tuple[nn.Linear, nn.Linear, Tensor]) -> None:
    inner, outer, values = parts
    between = values[..., 0].numel() * 32 * 4
    kept = {make: saved(make(inner, outer), inner, outer, values) for make in (as_usual, without)}
    assert kept[as_usual] - kept[without] == between


def test_a_layer_that_runs_again_keeps_its_inputs_alone(parts: tuple[nn.Linear, nn.Linear, Tensor]) -> None:
    inner, outer, values = parts
    given = values.clone().requires_grad_()

    def again(make: Callable[[nn.Linear, nn.Linear], Layer]) -> Layer:
        return lambda values: run(make(inner, outer), True, values)

    assert saved(again(without), inner, outer, given) == saved(again(as_usual), inner, outer, given)
    expected, found = (learned(again(make), inner, outer, values) for make in (as_usual, without))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_graph_can_be_gone_through_twice(parts: tuple[nn.Linear, nn.Linear, Tensor]) -> None:
    inner, outer, values = parts
    output = without(inner, outer)(values).sum()
    once, twice = (torch.autograd.grad(output, outer.weight, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(once, twice)


def test_second_derivatives_are_those_of_the_whole(parts: tuple[nn.Linear, nn.Linear, Tensor]) -> None:
    inner, outer, values = parts

    def second(layer: Layer) -> Tensor:
        given = values.clone().requires_grad_()
        (first,) = torch.autograd.grad(layer(given).square().sum(), given, create_graph=True)
        return torch.autograd.grad(first.square().sum(), inner.weight)[0]

    torch.testing.assert_close(second(without(inner, outer)), second(as_usual(inner, outer)))
