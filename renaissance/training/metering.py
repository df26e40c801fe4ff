"""Where a training step is measured: around each call of the encoder, and around what tasks do themselves.

A meter is told which part runs, and of what shape; what it makes of that is its own (`renaissance.training.ledger`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from torch import Tensor

from renaissance.api import Features, Joint, Modality, Pairs, Prefix, TextInput, VisionInput
from renaissance.assemble import Encoder
from renaissance.models.two_tower import TwoTower
from renaissance.toolkit.canonical import IMAGES_A_CALL, bucket_lengths, texts_a_call
from renaissance.training.cached import InParts

Part = Literal["vision", "text", "fusion", "heads"]
Inputs = VisionInput | TextInput | None
Stored = Features | Prefix | None
Result = TypeVar("Result")


class Meter:
    """What the parts of a step go through; this one measures nothing, and a `Ledger` measures them."""

    def run(
        self,
        part: Part,
        call: Callable[[], Result],
        *,
        shape: Hashable = None,
        filled: float = 1.0,
        taught: bool = False,
    ) -> Result:
        """Run a part of a step and measure it.

        shape: calls of one shape take the same; None: not known. filled: share of the tokens that a
        frozen tower runs that are not there to fill up its calls. taught: it is of a teacher.
        """
        return call()

    def encoding(self, encoder: Any, modality: Modality, inputs: Inputs, stored: Stored) -> None:
        """Note what a tower is about to encode, or to go on from."""

    def predicted(self, task: str, count: Tensor) -> None:
        """Note of how many predictions a task's loss is."""


class Metered:
    """An encoder that runs in so many parts, and whose calls a meter measures. taught: it is a teacher's.

    Letters in shapes: V images, T texts, N and L their tokens, D width, B any inputs.
    """

    def __init__(self, encoder: Encoder, parts: int = 1, meter: Meter | None = None, *, taught: bool = False) -> None:
        self._whole, self._encoder = encoder, InParts(encoder, parts)
        self._meter, self._taught = meter or Meter(), taught

    @property
    def vision(self) -> Any:
        """The vision tower."""
        return self._encoder.vision

    def encode_vision(self, images: VisionInput | None, stored: Stored = None) -> Features:
        """Encode distinct images [V, 3, H, W]; `stored` is what a store gave of them."""
        rows = len(stored.tokens) if images is None and stored is not None else len(images.pixels) if images else 0
        filled = rows / max(1, _filled_up(rows, IMAGES_A_CALL))
        return self._encode("vision", self._encoder.encode_vision, images, stored, (), filled)

    def encode_text(self, texts: TextInput, stored: Stored = None, *, changed: bool = False) -> Features:
        """Encode distinct texts [T, L]; `stored` is what a store gave of them. changed: a task has changed them."""
        # a frozen tower runs texts in calls whose shapes follow from their lengths
        runs = not changed and not isinstance(stored, Features)
        frozen = runs and isinstance(self._whole, TwoTower) and self._whole.prefix("text") != 0
        lengths = Counter(bucket_lengths(self._whole.text, texts).tolist()) if frozen else Counter[int]()
        tokens = sum(length * count for length, count in lengths.items())
        run = sum(length * _filled_up(count, texts_a_call(length)) for length, count in lengths.items())
        filled = tokens / run if run else 1.0
        encode = partial(self._encoder.encode_text, changed=changed)
        return self._encode("text", encode, texts, stored, (changed, *sorted(lengths.items())), filled)

    def fuse(self, pairs: Pairs) -> Joint:
        """Fuse pairs."""
        return self._meter.run(
            "fusion", lambda: self._encoder.fuse(pairs), shape=(id(self._whole), shape_of(pairs)), taught=self._taught
        )

    def represent(self, features: Features, modality: Modality) -> Tensor:
        """Return one vector [B, D] for each input of one modality."""
        shape = id(self._whole), modality, shape_of(features)
        return self._meter.run(
            "fusion", lambda: self._encoder.represent(features, modality), shape=shape, taught=self._taught
        )

    def _encode(
        self,
        modality: Modality,
        encode: Callable[..., Features],
        inputs: Inputs,
        stored: Stored,
        lengths: Hashable,
        filled: float,
    ) -> Features:
        self._meter.encoding(self._whole, modality, inputs, stored)
        shape = id(self._whole), modality, shape_of(inputs), shape_of(stored), lengths
        further = () if stored is None else (stored,)  # a one-tower model knows of no store
        return self._meter.run(
            modality, lambda: encode(inputs, *further), shape=shape, filled=filled, taught=self._taught
        )


def shape_of(value: Any) -> Hashable:
    """Return what says of inputs which computation they make: shapes, types, and what gets a gradient."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.requires_grad
    if isinstance(value, tuple):
        return tuple(map(shape_of, value))
    if is_dataclass(value) and not isinstance(value, type):
        return tuple(shape_of(getattr(value, field.name)) for field in fields(value))
    return value if isinstance(value, Hashable) else None


def _filled_up(rows: int, size: int) -> int:
    """Return the rows of the calls of one size in which so many rows are encoded."""
    return -(-rows // size) * size
