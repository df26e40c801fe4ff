"""Embeddings of the modality that the base of a one-tower model lacks: new ones, or those of a donor.

Letters: V images, T texts, N patches and the class token, L tokens, D the base's width, E the donor's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from renaissance.api import Features, Positions, SavedBackbone, TextInput, VisionInput
from renaissance.errors import SpecError
from renaissance.toolkit.attention import initialise
from renaissance.toolkit.dropout import Dropout
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.text import WordTokenizer

# with new weights there is nothing that the colours must match
MEAN = STD = (0.5, 0.5, 0.5)
# the longest text of a donor that has no table of positions of its own
POSITIONS = 512


class NewPatches(nn.Module):
    """A class token and patches of images, with learned positions, as ViT embeds them."""

    positions: Positions = "absolute"
    class_token = True
    revision: str | None = None

    def __init__(self, width: int, image_size: int, patch_size: int) -> None:
        super().__init__()
        self.width, self.patch_size = width, patch_size
        self.processor = ImageProcessor((image_size, image_size), mean=MEAN, std=STD)
        self.patches = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.table = nn.Parameter(torch.empty(1, 1 + (image_size // patch_size) ** 2, width))
        nn.init.normal_(self.table, std=0.02)

    def embedded(self, inputs: VisionInput) -> Features:
        """Return tokens [V, N, D] of pixels [V, 3, H, W].

        Raises:
            SpecError: the images are of another size, padded or masked.
        """
        if tuple(inputs.pixels.shape[-2:]) != self.processor.image_size or inputs.mask is not None:
            raise SpecError(f"These patch embeddings take images of {self.processor.image_size} pixels, all real.")
        if inputs.masked_patches is not None:
            raise SpecError("These patch embeddings take no masked patches. Leave the mask out.")
        pixels = self.processor.normalise(inputs.pixels).to(self.patches.weight.dtype)
        grid = self.patches(pixels).flatten(2).transpose(1, 2)  # [V, N - 1, D]
        tokens = torch.cat((self.first.expand(grid.shape[0], -1, -1), grid), dim=1) + self.table
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    @torch.no_grad()
    def resize(self, size: int) -> tuple[str, ...]:
        """Take images of `size` pixels a side from now on: the positions of the grid are interpolated.

        Raises:
            SpecError: whole patches do not fill such an image.
        """
        if size % self.patch_size:
            nearest = max(self.patch_size, round(size / self.patch_size) * self.patch_size)
            raise SpecError(f"image_size={size} is no multiple of patch_size={self.patch_size}; use {nearest}.")
        old, new = self.processor.image_size[0] // self.patch_size, size // self.patch_size
        self.processor = self.processor.resized((size, size))
        if old == new:
            return ()
        grid = self.table[:, 1:].transpose(1, 2).reshape(1, -1, old, old)  # [1, D, rows, columns]
        grid = functional.interpolate(grid, size=(new, new), mode="bicubic", antialias=True)
        self.table = nn.Parameter(torch.cat((self.table[:, :1], grid.flatten(2).transpose(1, 2)), dim=1))
        return ("table",)

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the preprocessing; return what `restored` builds them from."""
        self.processor.save(folder)
        return {"width": self.width, "patch_size": self.patch_size}

    @classmethod
    def restored(cls, saved: SavedBackbone) -> NewPatches:
        """Return what was saved, without its weights."""
        processor = ImageProcessor.load(saved.folder)
        patches = cls(saved.config["width"], processor.image_size[0], saved.config["patch_size"])
        patches.processor = processor
        return patches


class NewWords(nn.Module):
    """Words with learned positions and a norm, as BERT embeds them."""

    positions: Positions = "absolute"
    class_token = True
    revision: str | None = None

    def __init__(self, width: int, processor: WordTokenizer) -> None:
        super().__init__()
        self.width, self.processor = width, processor
        self.words = nn.Embedding(processor.facts.vocabulary, width)
        self.table = nn.Embedding(processor.facts.max_tokens, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.dropout = Dropout(0.1)
        initialise(self)

    def embedded(self, inputs: TextInput) -> Features:
        """Return tokens [T, L, D] of ids [T, L].

        Raises:
            SpecError: a text is longer than there are positions.
        """
        length = inputs.token_ids.shape[1]
        if length > self.table.num_embeddings:
            raise SpecError(f"The texts have {length} tokens, but max_tokens is {self.table.num_embeddings}.")
        words = self.words(inputs.token_ids) + self.table.weight[:length]
        return Features(self.dropout(self.norm(words)), inputs.mask)

    @torch.no_grad()
    def resize(self, size: int) -> tuple[str, ...]:
        """Take texts of up to `size` tokens from now on: positions are cut off, or continued by new rows."""
        self.processor = self.processor.with_max_tokens(size)
        table = nn.Embedding(size, self.width)
        initialise(table)
        kept = min(size, self.table.num_embeddings)
        changed = size != self.table.num_embeddings
        table.weight[:kept] = self.table.weight[:kept]
        self.table = table
        return ("table.weight",) if changed else ()

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the tokenizer; return what `restored` builds them from."""
        self.processor.save(folder)
        return {"width": self.width}

    @classmethod
    def restored(cls, saved: SavedBackbone) -> NewWords:
        """Return what was saved, without its weights."""
        return cls(saved.config["width"], WordTokenizer.load(saved.folder))


class OtherEmbeddings(nn.Module):
    """The embeddings of the modality that the base lacks, at the base's width.

    A donor that adds no positions to its tokens gets a new table of them.
    """

    def __init__(self, embedder: Any, width: int) -> None:
        super().__init__()
        self.embedder = embedder
        self.revision: str | None = embedder.revision
        self.class_token: bool = embedder.class_token
        self.projection = nn.Identity() if embedder.width == width else nn.Linear(embedder.width, width)
        self.table = None if embedder.positions == "absolute" else nn.Embedding(self._longest(), width)
        for part in (self.projection, self.table):
            if part is not None:
                initialise(part)

    @property
    def processor(self) -> Any:
        """What makes inputs of pictures or texts: that of the embeddings, which save it."""
        return self.embedder.processor

    @processor.setter
    def processor(self, processor: Any) -> None:
        self.embedder.processor = processor

    def embedded(self, inputs: Any) -> Features:
        """Return tokens [B, N, D] and their mask."""
        given: Features = self.embedder.embedded(inputs)
        tokens: Tensor = self.projection(given.tokens)
        if self.table is not None:
            tokens = tokens + self.table.weight[: tokens.shape[1]]
        return replace(given, tokens=tokens)

    def resize(self, size: int) -> tuple[str, ...]:
        """Take inputs of another size; return the names of the tensors whose shape changed.

        Raises:
            SpecError: the donor cannot take that size.
        """
        if self.table is not None:
            raise SpecError("The donor of these embeddings has no table of positions to resize; keep their size.")
        names: tuple[str, ...] = self.embedder.resize(size)
        return tuple(f"embedder.{name}" for name in names)

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the processor's files; return the config of the embeddings."""
        config: Mapping[str, Any] = self.embedder.save(folder)
        return config

    def _longest(self) -> int:
        facts = getattr(self.processor, "facts", None)
        if facts is not None:
            return int(facts.max_tokens)
        grid = getattr(self.embedder, "grid", None)
        return grid[0] * grid[1] + int(self.embedder.num_prefix_tokens) if grid else POSITIONS
