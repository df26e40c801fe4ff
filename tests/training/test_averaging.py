"""Averaged weights: their formula, what they hold, and that they come and go without a trace."""

from __future__ import annotations

import torch
from torch import nn

from renaissance.training.averaging import Average


def moved(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def test_an_average_follows_the_formula_with_less_weight_on_the_past_at_first() -> None:
    model = nn.Linear(2, 2)
    moved(model, 0.0)
    average, expected = Average(model, 0.5), 0.0
    for update, value in enumerate((1.0, 3.0, -2.0, 5.0, 4.0, 4.0, 1.0, 0.0, 9.0, 2.0), start=1):
        moved(model, value)
        average.update(update)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(average.tensors()["weight"], torch.full((2, 2), expected))


def test_the_weights_of_a_model_come_back_bit_for_bit() -> None:
    model = nn.Linear(3, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average = Average(model, 0.9)
    moved(model, 0.25)
    with average.in_place():
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(bool((value == 0.25).all()) for value in model.state_dict().values())
    assert all(torch.equal(value, before[name]) for name, value in average.tensors().items())


def test_what_is_frozen_has_no_average_until_it_is_trained() -> None:
    model = nn.Linear(3, 3)
    model.bias.requires_grad_(False)
    average = Average(model, 0.9)
    assert set(average.tensors()) == {"weight"}
    model.bias.requires_grad_(True)
    average.follow()
    assert set(average.tensors()) == {"weight", "bias"}


def test_a_restored_average_goes_on_as_the_first() -> None:
    model = nn.Linear(3, 3)
    first = Average(model, 0.9)
    moved(model, 1.0)
    first.update(1)
    second = Average(model, 0.9)
    second.load({name: value.clone() for name, value in first.tensors().items()})
    moved(model, 2.0)
    for average in (first, second):
        average.update(2)
    assert all(torch.equal(value, second.tensors()[name]) for name, value in first.tensors().items())
