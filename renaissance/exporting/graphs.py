"""What can be exported of a model: each part as modules that take plain tensors and give plain tensors.

Letters in shapes: V images, T texts, P pairs of them, H and W height and width in pixels, N tokens of an image, L
tokens of a text, D width of a tower, S width of the shared space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from renaissance.api import Features, Output, TextInput, VisionInput
from renaissance.assemble import Assembly
from renaissance.toolkit.pooling import one_vector

Part = Literal["dual", "vision", "text", "match"]

_POOLED: frozenset[Output] = frozenset({"pooled"})


class AsGiven:
    """Texts as they are given."""

    def texts(self, token_ids: Tensor, mask: Tensor) -> TextInput:
        """Return the input of a tower: token ids [T, L], mask bool [T, L]."""
        return TextInput(token_ids, mask)

    def cut(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the tokens [T, L, D] of a mask [T, L]."""
        return tokens


@dataclass(frozen=True, slots=True)
class Padded:
    """Texts padded to one length: for towers whose code is another at some length, so that no graph has them all."""

    length: int
    pad_id: int

    def texts(self, token_ids: Tensor, mask: Tensor) -> TextInput:
        """Return the input of a tower [T, length] from token ids [T, L] and mask bool [T, L]."""
        missing = (0, self.length - mask.shape[1])
        return TextInput(functional.pad(token_ids, missing, value=self.pad_id), functional.pad(mask, missing))

    def cut(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the first tokens [T, L, D] of [T, length, D], as many as the mask [T, L] has."""
        # not a slice: that is contiguous at the whole length alone, which export takes for a case of its own
        return tokens.index_select(1, torch.arange(mask.shape[1], device=tokens.device))


Fit = AsGiven | Padded


class ImageVectors(nn.Module):
    """Images to unit vectors in the space that they share with texts."""

    def __init__(self, assembly: Assembly, fit: Fit) -> None:
        super().__init__()
        self.encoder, self.head = assembly.encoder, cast(Any, assembly.tasks["itc"])

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """Return vectors [V, S] of pixels [V, 3, H, W]."""
        vector = self.encoder.represent(self.encoder.encode_vision(VisionInput(pixels)), "vision")
        return (self.head.embed(vector, "vision"),)


class TextVectors(nn.Module):
    """Texts to unit vectors in the space that they share with images."""

    def __init__(self, assembly: Assembly, fit: Fit) -> None:
        super().__init__()
        self.encoder, self.head = assembly.encoder, cast(Any, assembly.tasks["itc"])
        self.fit = fit

    def forward(self, token_ids: Tensor, mask: Tensor) -> tuple[Tensor]:
        """Return vectors [T, S] of token ids [T, L] with their mask bool [T, L]."""
        vector = self.encoder.represent(self.encoder.encode_text(self.fit.texts(token_ids, mask)), "text")
        return (self.head.embed(vector, "text"),)


class VisionTower(nn.Module):
    """Images to tokens and one vector."""

    def __init__(self, assembly: Assembly, fit: Fit) -> None:
        super().__init__()
        self.tower = assembly.encoder.vision

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens [V, N, D], their mask bool [V, N] and pooled [V, D] of pixels [V, 3, H, W]."""
        return _outputs(self.tower(VisionInput(pixels)))


class TextTower(nn.Module):
    """Texts to tokens and one vector."""

    def __init__(self, assembly: Assembly, fit: Fit) -> None:
        super().__init__()
        self.tower = assembly.encoder.text
        self.fit = fit

    def forward(self, token_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens [T, L, D], zero at padding, the mask, and pooled [T, D] of token ids [T, L], mask [T, L]."""
        tokens, real, pooled = _outputs(self.tower(self.fit.texts(token_ids, mask)))
        return self.fit.cut(tokens, mask), self.fit.cut(real, mask), pooled


class Matcher(nn.Module):
    """Pairs of an image and a text to the probability that they belong together."""

    def __init__(self, assembly: Assembly, fit: Fit) -> None:
        super().__init__()
        self.encoder, self.head = assembly.encoder, cast(Any, assembly.tasks["itm"])
        self.fit = fit

    def forward(self, pixels: Tensor, token_ids: Tensor, mask: Tensor) -> tuple[Tensor]:
        """Return probabilities [P] of pixels [P, 3, H, W], token ids [P, L] and mask bool [P, L]."""
        vision = self.encoder.encode_vision(VisionInput(pixels))
        text = self.encoder.encode_text(self.fit.texts(token_ids, mask))
        return (torch.sigmoid(self.head.predict(self.encoder.fuse(vision, text, _POOLED))),)


@dataclass(frozen=True, slots=True)
class Graph:
    """One file of an export. axes: the names of the axes of each input that may have any size."""

    name: str
    module: Callable[[Assembly, Fit], nn.Module]
    axes: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]

    @property
    def reads_texts(self) -> bool:
        """Whether texts are among its inputs."""
        return "token_ids" in self.axes


_PIXELS = {"pixels": {0: "images"}}
_TEXTS = {name: {0: "texts", 1: "tokens"} for name in ("token_ids", "mask")}
_PAIRS = {"pixels": {0: "pairs"}} | {name: {0: "pairs", 1: "tokens"} for name in ("token_ids", "mask")}
_TOWER = ("tokens", "token_mask", "pooled")

GRAPHS: Mapping[Part, tuple[Graph, ...]] = {
    "dual": (
        Graph("images", ImageVectors, _PIXELS, ("vectors",)),
        Graph("texts", TextVectors, _TEXTS, ("vectors",)),
    ),
    "vision": (Graph("vision", VisionTower, _PIXELS, _TOWER),),
    "text": (Graph("text", TextTower, _TEXTS, _TOWER),),
    "match": (Graph("match", Matcher, _PAIRS, ("probability",)),),
}


def _outputs(features: Features) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens [B, N, D], zero where none is real, a copy of their mask [B, N], and one vector [B, D]."""
    tokens = features.tokens.masked_fill(~features.mask.unsqueeze(-1), 0)
    return tokens, features.mask.clone(), one_vector(features)
