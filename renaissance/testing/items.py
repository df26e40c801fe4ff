"""What tasks are tried on: made-up items, and scorers whose predictions are known.

Letters in shapes: V images, T texts, P pairs, I items, K outputs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from renaissance.api import Item, Score
from renaissance.errors import DataError
from renaissance.testing.subjects import NotApplicable

SIDE = 32
BOXES = ((0.0, 0.0, 16.0, 16.0), (16.0, 0.0, 16.0, 16.0), (0.0, 16.0, 16.0, 16.0))
WORDS = ("cup", "dog", "tree", "house", "cat", "square", "train", "circle")
COUNT = 8
IMAGES, CAPTIONS_EACH = 12, 2
Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of random pixels, by its number."""

    number: int

    @property
    def name(self) -> str:
        """What it is called."""
        return f"picture {self.number}"

    def read(self) -> bytes:
        """Return it as a PNG file."""
        generator = torch.Generator().manual_seed(self.number)
        pixels = torch.randint(0, 256, (SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels.numpy()).save(buffer, "PNG")
        return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Example:
    """Items that a task takes, and what a model that is always right gives for each.

    right: what `ItemTask.decide` gives [K], or scores [images, texts] for a task that compares matches; None: unknown.
    """

    items: Sequence[Item]
    right: Sequence[Tensor] | None = None


def shapes(task: Any, slots: int) -> Iterator[Example]:
    """Yield items of several shapes, one of which most tasks take: so many images and so many texts an item."""
    given = getattr(task, "labels", ())
    labels: Sequence[str] = () if callable(given) else tuple(given or ())
    regions = bool(getattr(task, "regions", False))
    for images, texts in ((slots, 1), (1, 3), (slots, 2), (3, 1), (0, 1), (0, 2), (1, 0), (2, 2)):
        candidates = len(BOXES) if regions else max(images, texts)
        yield Example(*_items(images, texts, candidates, labels))


def captioned_items() -> list[Item]:
    """Return items of one image with three texts each."""
    return _items(1, 3, 3, ())[0]


def _items(images: int, texts: int, candidates: int, labels: Sequence[str]) -> tuple[list[Item], list[Tensor]]:
    """Return items, each with a label, answers, boxes and a target, and what is right of them."""
    items, right = [], []
    for number in range(COUNT):
        label = labels[number % len(labels)] if labels else str(1.5 * (number % 5))
        boxes = BOXES if images == 1 else ()
        choices = candidates if candidates > 1 else len(boxes)
        words = [WORDS[(number + place) % len(WORDS)] for place in range(texts)]
        items.append(
            Item(
                id=f"item-{number}",
                images=tuple(Picture(4 * number + place) for place in range(images)),
                texts=tuple(f"is there a {word} beside number {number}" for word in words),
                row=f"made-up item {number}",
                label=label,
                answers=(label,) * 10,
                boxes=boxes,
                target=number % choices if choices else None,
                fields={"answer_type": "other"},
            )
        )
        if images == texts > 1:
            right.append(torch.eye(images))
        elif candidates > 1:
            right.append(one_hot(number % candidates, candidates))
        else:
            right.append(one_hot(number % len(labels), len(labels)) if labels else torch.tensor([float(label)]))
    return items, right


def one_hot(place: int, count: int) -> Tensor:
    """Return fp32 [count]: 1 at a place, else 0."""
    return torch.nn.functional.one_hot(torch.tensor(place), count).float()


# --- scorers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KnownItemScorer:
    """Gives predictions that are known, by item."""

    items: Sequence[Item]
    told: dict[str, Tensor] = field(default_factory=dict)

    def decisions(self, task: str) -> list[Tensor]:
        """Return what was told of each item [K]."""
        return [self.told[item.id].reshape(-1) for item in self.items]

    def matches(self, *, regions: bool = False, by: Literal["itm", "itc"] | None = None) -> list[Tensor]:
        """Return what was told of each item [images, texts].

        Raises:
            DataError: it is not known of each of an item's images and each of its texts.
        """
        return [self._matched(item, len(item.boxes if regions and item.boxes else item.images)) for item in self.items]

    def _matched(self, item: Item, images: int) -> Tensor:
        told, texts = self.told[item.id], len(item.texts)
        if told.numel() != images * texts:
            raise DataError(f"{item.row}: {images} x {texts} scores are needed, and {told.numel()} are known.")
        return told.reshape(images, texts)

    def on(self, items: Sequence[Item]) -> KnownItemScorer:
        """Return the scorer of other items."""
        return KnownItemScorer(items, self.told)

    def image_vectors(self) -> Tensor:
        """Refuse: what vectors are right is not known."""
        raise NotApplicable("it compares vectors, and which are right is not known")

    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """Refuse: what vectors are right is not known."""
        raise NotApplicable("it compares vectors, and which are right is not known")


@dataclass(frozen=True, slots=True)
class KnownScorer:
    """Gives scores of 12 images against 24 captions: what `transform` makes of 1 where they belong together, else 0."""

    transform: Transform

    @property
    def positives(self) -> Tensor:
        """Bool [V, T]: each image has two captions."""
        return torch.eye(IMAGES, dtype=torch.bool).repeat_interleave(CAPTIONS_EACH, dim=1)

    def similarity(self) -> Tensor:
        """Scores fp32 [V, T]."""
        return self.transform(self.positives.float())

    def match(self, index: Tensor, by: str = "itm") -> Tensor:
        """Logits fp32 [P] of the pairs in index int64 [P, 2]: above 0 where they belong together, else below."""
        belongs = self.positives[index[:, 0], index[:, 1]].float()
        return self.transform(belongs) * 2 - 1 if len(belongs) else belongs


Judged = Callable[[Transform], Sequence[Score]]


def judge_of(task: Any, example: Example | None) -> Judged:
    """Return what a task scores when `transform` is applied to what is right; no example: it ranks captions."""

    def judged(transform: Transform) -> Sequence[Score]:
        if example is None:
            return list(task.score(KnownScorer(transform)))
        assert example.right is not None
        told = {item.id: transform(right) for item, right in zip(example.items, example.right, strict=True)}
        return list(task.score(KnownItemScorer(example.items, told)))

    return judged
