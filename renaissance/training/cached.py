"""A batch larger than memory: the encoder runs in parts, and each part runs again in the backward pass.

Contrast compares each image with every text, and hard negatives come from the whole batch, so its parts cannot be
trained one after the other. Of a part its outputs are kept; what is inside of it is computed again, from the same
random state, when its gradient is there (the two passes of GradCache, arXiv 2101.06983, for fusions too). Loss and
gradient are those of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from renaissance.api import Features, Joint, Modality, Pairs, Prefix, TextInput, VisionInput
from renaissance.assemble import Encoder
from renaissance.errors import SpecError
from renaissance.models.two_tower import TwoTower, holds_still
from renaissance.toolkit.pooling import rows
from renaissance.toolkit.recompute import run

Inputs = TypeVar("Inputs", bound=TextInput | VisionInput | Features | Prefix | None)
Output = TypeVar("Output", bound=Features | Joint | Tensor)


class InParts:
    """An encoder that is called with everything, and runs in so many parts; with one it runs as it is."""

    def __init__(self, encoder: Encoder, parts: int) -> None:
        self._encoder, self._parts = encoder, parts

    @property
    def vision(self) -> Any:
        """The vision tower."""
        return self._encoder.vision

    def encode_vision(self, images: VisionInput | None, stored: Features | Prefix | None = None) -> Features:
        """Encode distinct images; `stored` is what a store gave of them."""
        return self._encoded("vision", self._encoder.encode_vision, images, stored)

    def encode_text(
        self, texts: TextInput, stored: Features | Prefix | None = None, *, changed: bool = False
    ) -> Features:
        """Encode distinct texts; `stored` is what a store gave of them. changed: a task has changed them."""
        encode = self._encoder.encode_text
        if changed and isinstance(self._encoder, TwoTower):
            encode = partial(self._encoder.encode_text, changed=True)
        return self._encoded("text", encode, texts, stored, in_calls=not changed)

    def represent(self, features: Features, modality: Modality) -> Tensor:
        """Return one vector [B, D] for each input of one modality."""
        if self._parts == 1:
            return self._encoder.represent(features, modality)
        return self._run(
            lambda part: self._encoder.represent(taken(features, part), modality),
            len(features.tokens),
            features.tokens.device,
        )

    def fuse(self, pairs: Pairs) -> Joint:
        """Fuse pairs."""

        def fused(index: Tensor, slots: Tensor | None) -> Joint:
            vision, text = rows(pairs.vision, index[:, 0]), rows(pairs.text, index[:, 1])
            return self._encoder.fuse(vision, text, pairs.outputs, slots)

        if self._parts == 1:
            return fused(pairs.index, pairs.slots)
        slots = pairs.slots
        return self._run(
            lambda part: fused(pairs.index[part], None if slots is None else slots[part]),
            len(pairs.index),
            pairs.index.device,
        )

    def _encoded(
        self, modality: Modality, encode: Callable[..., Features], inputs: Any, stored: Any, *, in_calls: bool = True
    ) -> Features:
        """Encode in parts; in_calls: a frozen tower runs in small calls of one shape, and keeps nothing, as it is."""
        # a one-tower model, which nothing is stored of, knows of no store
        further = [] if stored is None else [stored]
        small = in_calls and isinstance(self._encoder, TwoTower) and holds_still(getattr(self._encoder, modality))
        if self._parts == 1 or small:
            return encode(inputs, *further)
        given = stored if inputs is None else inputs
        tensor = next(value for value in _tensors(given))
        return self._run(
            lambda part: encode(taken(inputs, part), *(taken(one, part) for one in further)),
            len(tensor),
            tensor.device,
        )

    def _run(self, call: Callable[[Tensor], Output], count: int, device: torch.device) -> Output:
        """Return what calls with the rows of each part give, joined."""
        every = torch.arange(count, device=device)
        outputs: list[Output] = []
        for part in every.tensor_split(self._parts):
            # processes must make the same calls (FSDP): a part without rows runs on one whose output is not used
            padded = part if len(part) or not count else every[-1:]
            outputs.append(taken(run(call, True, padded), slice(len(part))))
        joined: Output = _joined(outputs)
        return joined


def check_cached(module: nn.Module) -> None:
    """Refuse what is not the same in parts; the module is left in the mode that it is in.

    Raises:
        SpecError: batch statistics are estimated in training; a part has other ones than the batch.
    """
    modes = {part: part.training for part in module.modules()}
    module.train()
    estimating = [name for name, part in module.named_modules() if isinstance(part, _BatchNorm) and part.training]
    for part, mode in modes.items():
        part.training = mode
    if estimating:
        raise SpecError(
            f"batch.cached runs the batch in parts, and '{estimating[0]}' estimates the statistics of a batch, which "
            "are others in each part. Leave out batch.cached, or keep that tower frozen."
        )


def _tensors(value: Any) -> list[Tensor]:
    return [part for part in (getattr(value, field.name) for field in fields(value)) if isinstance(part, Tensor)]


def taken(value: Any, part: Tensor | slice) -> Any:
    """Return these rows of inputs or of outputs."""
    if isinstance(value, Tensor):
        return value[part]
    if isinstance(value, tuple):
        return tuple(taken(one, part) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: taken(getattr(value, field.name), part) for field in fields(value)})
    return value


def _joined(parts: Sequence[Any]) -> Any:
    """Return outputs one after the other; texts of different lengths are filled with zeros, where no token is real."""
    first = parts[0]
    if isinstance(first, Tensor):
        return _stacked(parts)
    if isinstance(first, tuple):
        return tuple(_joined(each) for each in zip(*parts, strict=True))
    if is_dataclass(first) and not isinstance(first, type):
        return replace(
            first, **{field.name: _joined([getattr(part, field.name) for part in parts]) for field in fields(first)}
        )
    return first


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    if parts[0].dim() < 2 or len({part.shape[1] for part in parts}) == 1:
        return torch.cat(list(parts))
    longest = max(part.shape[1] for part in parts)
    unchanged = [0, 0] * (parts[0].dim() - 2)
    return torch.cat([functional.pad(part, [*unchanged, 0, longest - part.shape[1]]) for part in parts])
