"""The conformance kit of renaissance on everything that this plugin offers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from renaissance_plugin_grounding.boxes import shares

from renaissance.api import Box, Item
from renaissance.testing import conformance
from renaissance.testing.items import SIDE, Example, Picture

BOXES: tuple[Box, ...] = ((0.0, 0.0, 8.0, 16.0), (16.0, 4.0, 12.0, 8.0), (2.0, 20.0, 6.0, 10.0))


def phrase(number: int) -> Item:
    words = (f"thing number {number}",)
    return Item(f"item-{number}", (Picture(number),), words, f"item {number}", boxes=BOXES, target=number % len(BOXES))


ITEMS = [phrase(number) for number in range(8)]
RIGHT = [torch.tensor(shares(BOXES[number % len(BOXES)], (SIDE, SIDE))) for number in range(8)]


@conformance("renaissance_plugin_grounding", examples={"grounding": Example(ITEMS, RIGHT)})
def test_conforms(rule: Callable[[], None]) -> None:
    rule()
