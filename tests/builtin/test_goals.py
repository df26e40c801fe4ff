"""What heads on items learn from costs what a plain loop in float64 says, and has a right gradient."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from renaissance.builtin.goals import Goal, one_label, one_number, soft_answers
from renaissance.builtin.labels import Labels, Numbers, SoftLabels

ITEMS, LABELS = 4, 3
NAMES = ("a", "b", "c")


def cross_entropy(outputs: Tensor, targets: Tensor) -> float:
    lost = 0.0
    for row, right in zip(outputs.tolist(), targets.tolist(), strict=True):
        lost += math.log(sum(math.exp(value) for value in row)) - row[right]
    return lost


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> float:
    lost = 0.0
    for row, shares in zip(outputs.tolist(), targets.tolist(), strict=True):
        for value, share in zip(row, shares, strict=True):
            lost += share * math.log1p(math.exp(-value)) + (1 - share) * math.log1p(math.exp(value))
    return lost


def squared_error(outputs: Tensor, targets: Tensor) -> float:
    return sum((value - right) ** 2 for (value,), right in zip(outputs.tolist(), targets.tolist(), strict=True))


Naive = Callable[[Tensor, Tensor], float]
CASES: dict[str, tuple[Goal, Tensor, Naive]] = {
    "one label": (one_label(Labels("pair", NAMES)), torch.tensor([2, 0, 1, 0]), cross_entropy),
    "soft answers": (
        soft_answers(SoftLabels("vqa", NAMES)),
        torch.tensor([[0.3, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.6, 0.3], [0.0, 0.9, 0.0]], dtype=torch.float64),
        binary_cross_entropy,
    ),
    "a number": (one_number(Numbers("regression")), torch.tensor([0.5, -2.0, 3.0, 1.25]).double(), squared_error),
}


@pytest.mark.parametrize("case", CASES)
def test_a_goal_costs_what_a_plain_loop_says_and_its_gradient_is_right(case: str) -> None:
    goal, targets, naive = CASES[case]
    torch.manual_seed(0)
    outputs = torch.randn(ITEMS, goal.outputs, dtype=torch.float64, requires_grad=True)
    assert goal.loss(outputs, targets)[0].item() == pytest.approx(naive(outputs.detach(), targets), rel=1e-6)
    assert torch.autograd.gradcheck(lambda given: goal.loss(given, targets)[0], (outputs,))
