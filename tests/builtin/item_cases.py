"""Items, and a scorer whose predictions are made up, for the tests of tasks on items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from renaissance.api import Item, ModelFacts

FACTS = ModelFacts(vision=6, text=6, joint=6, fused_text=None, shared_space=False, tokenizer=None)


@dataclass(frozen=True)
class Named:
    """An image that is only a name."""

    name: str

    def read(self) -> bytes:
        raise AssertionError("no test of scores reads an image")


def item(number: int, *, images: int = 1, texts: int = 1, **told: Any) -> Item:
    """Return an item; two in a row are on the same image."""
    names = tuple(Named(f"image {number // 2}-{place}") for place in range(images))
    words = tuple(f"text {number}-{place}" for place in range(texts))
    return Item(id=f"q-{number}", images=names, texts=words, row=f"test, item {number}", **told)


@dataclass
class FakeScorer:
    """Gives predictions that are known, by item id."""

    items: Sequence[Item]
    decided: Mapping[str, Tensor] = field(default_factory=dict)
    vectors: Callable[[Sequence[str]], Tensor] = lambda keys: torch.zeros(len(keys), 2)
    images: Tensor | None = None
    asked: list[bool] = field(default_factory=list)

    def decisions(self, task: str) -> list[Tensor]:
        return [self.decided[item.id] for item in self.items]

    def matches(self, *, regions: bool = False, by: Literal["itm", "itc"] | None = None) -> list[Tensor]:
        self.asked.append(regions)
        return [self.decided[item.id] for item in self.items]

    def on(self, items: Sequence[Item]) -> FakeScorer:
        return FakeScorer(items, dict(self.decided))

    def image_vectors(self) -> Tensor:
        return torch.stack([self.decided[item.id] for item in self.items])

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        return self.vectors(texts)
