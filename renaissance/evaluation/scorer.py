"""The scoring interface: scores of images against texts, each distinct input of a split encoded once.

Letters: V distinct images, T distinct texts, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from renaissance.api import Features
from renaissance.assemble import Assembly
from renaissance.errors import CapabilityError
from renaissance.toolkit.devices import moved
from renaissance.toolkit.pairing import positives
from renaissance.toolkit.pooling import over_tokens, rows

PAIRS_AT_ONCE = 256


class ModelScorer:
    """Scores of one model on one split.

    images, texts: make iterators over the encoded batches of the split's distinct inputs, in order; they run at the
    first use. caption_keys int64 [V, C] and text_keys int64 [T] say what belongs together.
    """

    def __init__(
        self,
        assembly: Assembly,
        images: Callable[[], Iterable[Features]],
        texts: Callable[[], Iterable[Features]],
        caption_keys: Tensor,
        text_keys: Tensor,
        progress: Callable[[Iterable[Any], int, str], Iterator[Any]],
    ) -> None:
        self._assembly, self._images, self._texts, self._progress = assembly, images, texts, progress
        self._belongs = positives(caption_keys, text_keys)
        self._features: tuple[Features, Features] | None = None

    @property
    def positives(self) -> Tensor:
        """Bool [V, T]: which distinct texts are captions of which images."""
        return self._belongs

    def similarity(self) -> Tensor:
        """Dot products of ITC's unit vectors, fp32 [V, T].

        Raises:
            CapabilityError: the model was not trained for ITC.
        """
        task, encoder = self._task("itc"), self._assembly.encoder
        images, texts = self.features()
        device = next(self._assembly.parameters()).device
        with torch.inference_mode():
            vision = _chunked(images, lambda part: task.embed(encoder.represent(part, "vision"), "vision"), device)
            text = _chunked(texts, lambda part: task.embed(encoder.represent(part, "text"), "text"), device)
            return vision @ text.T

    def match(self, index: Tensor, by: str = "itm") -> Tensor:
        """Logits fp32 [P] of the (image, text) pairs in index int64 [P, 2], by ITM's head or another on pooled vectors.

        Raises:
            CapabilityError: the model was not trained for it.
        """
        task, encoder = self._task(by), self._assembly.encoder
        images, texts = self.features()
        device = next(self._assembly.parameters()).device
        parts = torch.split(index, PAIRS_AT_ONCE)
        logits: list[Tensor] = []
        with torch.inference_mode():
            for part in self._progress(parts, len(parts), "Matching pairs"):
                vision = moved(rows(images, part[:, 0]), device)
                text = moved(trimmed(rows(texts, part[:, 1])), device)
                logits.append(task.predict(encoder.fuse(vision, text, frozenset({"pooled"}))).cpu())
        return torch.cat(logits)

    def features(self) -> tuple[Features, Features]:
        """The encoded distinct images [V, N, D] and texts [T, L, D], on the CPU."""
        if self._features is None:
            with torch.inference_mode():
                self._features = joined(self._images()), joined(self._texts())
        return self._features

    def _task(self, name: str) -> Any:
        if name not in self._assembly.tasks:
            trained = ", ".join(self._assembly.tasks) or "nothing"
            raise CapabilityError(
                f"This needs the task '{name}', and the model was trained for {trained}; add '{name}' to its tasks."
            )
        return self._assembly.tasks[name]


def _chunked(features: Features, embed: Callable[[Features], Tensor], device: torch.device, size: int = 1024) -> Tensor:
    parts = torch.split(torch.arange(len(features.tokens)), size)
    return torch.cat([embed(moved(rows(features, part), device)).cpu() for part in parts])


def trimmed(features: Features) -> Features:
    """Drop the padding beyond the longest text of these pairs."""
    longest = int(features.mask.sum(1).max())
    return over_tokens(features, lambda tokens: tokens[:, :longest])


def joined(batches: Iterable[Features]) -> Features:
    """Concatenate encoded batches, padded to the longest."""
    parts = [moved(batch, torch.device("cpu")) for batch in batches]
    length = max(part.tokens.shape[1] for part in parts)
    padded = [over_tokens(part, lambda tokens: _padded(tokens, length)) for part in parts]
    return Features(
        torch.cat([part.tokens for part in padded]),
        torch.cat([part.mask for part in padded]),
        _cat([part.pooled for part in padded]),
        tuple(torch.cat(layer) for layer in zip(*(part.layers for part in padded), strict=True)),
        _cat([part.embedded for part in padded]),
    )


def _padded(tokens: Tensor, length: int) -> Tensor:
    """Return tokens [B, N, ...] as [B, length, ...], with zeros at the end."""
    missing = length - tokens.shape[1]
    return F.pad(tokens, (*(0, 0) * (tokens.dim() - 2), 0, missing))


def _cat(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None
