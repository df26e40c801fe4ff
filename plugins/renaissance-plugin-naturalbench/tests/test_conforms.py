"""The conformance kit of renaissance on everything that this plugin offers."""

from __future__ import annotations

from collections.abc import Callable

import torch

from renaissance.api import Item
from renaissance.testing import conformance
from renaissance.testing.items import Example, Picture

ANSWERS = (("yes", "no", "no", "yes"), ("B", "A", "B", "A"))


def pair(number: int, texts: int, **more: object) -> Item:
    images = (Picture(2 * number), Picture(2 * number + 1))
    words = tuple(f"text {place} of {number}" for place in range(texts))
    return Item(f"item-{number}", images, words, f"item {number}", **more)  # type: ignore[arg-type]  # the item's own fields


def right(answers: tuple[str, ...]) -> torch.Tensor:
    """Return scores [images, texts] of a model that knows the answers, question by question."""
    q0_i0, q0_i1, q1_i0, q1_i1 = (answer in ("yes", "A") for answer in answers)
    return torch.tensor([[q0_i0, not q0_i0, q1_i0, not q1_i0], [q0_i1, not q0_i1, q1_i1, not q1_i1]]).float()


MMVP = Example([pair(n, 2, fields={"pattern": f"pattern {n % 9}"}) for n in range(18)], [torch.eye(2)] * 18)
NATURALBENCH = Example(
    [pair(n, 4, answers=ANSWERS[n % 2]) for n in range(8)], [right(ANSWERS[n % 2]) for n in range(8)]
)


@conformance("renaissance_plugin_naturalbench", examples={"mmvp": MMVP, "naturalbench": NATURALBENCH})
def test_conforms(rule: Callable[[], None]) -> None:
    rule()
