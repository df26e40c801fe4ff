"""Masked image modelling: predict hidden patches of an image from the rest of it and from its caption.

Letters: P pairs, H and W height and width in pixels, S side of a patch in pixels, N patches, D fused width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.api import Batch, Encoded, Features, Joint, ModelFacts, Pairs, TaskLoss, Views, VisionInput
from renaissance.builtin.task_entries import MimOptions
from renaissance.errors import SpecError
from renaissance.toolkit.attention import initialise
from renaissance.toolkit.losses import squared_error, wide
from renaissance.toolkit.patches import blocks, normalised_patches, scattered
from renaissance.toolkit.teaching import taught

# class, distillation and register tokens that stand before the grid
MOST_PREFIX_TOKENS = 8


class MaskedImageModelling(nn.Module):
    """Predict the hidden patches of each pair's image; the head runs at hidden patches only.

    `mask_token` [3, S, S] is learned, and stands in the place of hidden patches before the backbone embeds them; what
    is predicted are pixels, normalised by patch (arXiv 2111.06377), or the teacher's fused tokens of the same patch in
    the whole picture, normalised by token (arXiv 2202.03555), or those of its vision tower before any fusion.
    """

    def __init__(self, options: MimOptions, *, model: ModelFacts) -> None:
        super().__init__()
        assert model.fused_text is not None
        self.options = options
        self.needs_teacher = None if options.target == "pixels" else options.momentum
        side, width = options.patch_size, model.fused_text
        widths = {"pixels": 3 * side * side, "features": width, "vision": model.vision_tokens}
        predicted = widths[options.target]
        if predicted is None:
            raise SpecError("'mim': target=vision is for models with a vision tower; say target=features.")
        self.mask_token = nn.Parameter(torch.zeros(3, side, side))
        self.head = nn.Linear(width, predicted)
        initialise(self.head)

    def views(self, batch: Batch) -> Views:
        """Return the image of each pair, with patches that are hidden.

        Raises:
            SpecError: the images are stored as features, padded, or no multiple of the patches.
        """
        images = batch.images
        if images is None or images.mask is not None:
            fault = "their features are read from a store" if images is None else "they are padded"
            raise SpecError(f"'mim' hides patches of images, and cannot: {fault}. Leave 'mim' out.")
        grid = self._grid(images)
        count = min(max(1, round(self.options.probability * grid[0] * grid[1])), grid[0] * grid[1])
        choose = scattered if self.options.masking == "random" else blocks
        masked = choose(batch.seeds, count, grid)  # [P, N]
        return Views(images=VisionInput(images.pixels[batch.pairs[:, 0]], None, masked))

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> Pairs:
        """Pair each image, some of it hidden, with its own text."""
        hidden, _ = encoded.view("mim")
        assert hidden is not None
        index = torch.stack([torch.arange(len(batch.pairs), device=batch.pairs.device), batch.pairs[:, 1]], dim=1)
        masked = self._masked(batch)
        return Pairs(hidden, encoded.text, index, frozenset({"vision"}), batch.slots, masked)

    def lesson(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> Pairs | None:
        """Return what the teacher fuses: each whole image with its own text; nothing where its tower is the target."""
        if self.options.target == "vision":
            return None
        return Pairs(encoded.vision, encoded.text, batch.pairs, frozenset({"vision"}), batch.slots)

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        """Return the squared error over the hidden patches, averaged within each."""
        assert joint is not None
        assert pairs is not None
        assert batch.images is not None
        masked = pairs.targets
        assert masked is not None
        predicted = wide(self.head(self._patches(joint.vision, batch.images)[masked]))  # [hidden patches, values]
        whole = self._whole(encoded, batch, batch.images)
        error = squared_error(predicted, whole[masked].to(predicted.dtype))
        return TaskLoss(error.sum(), masked.sum())

    def _whole(self, encoded: Encoded, batch: Batch, images: VisionInput) -> Tensor:
        """Return what is to be predicted of each patch of each pair's image [P, N, values]."""
        image = batch.pairs[:, 0]
        if self.options.target == "pixels":
            return normalised_patches(images.pixels, self.options.patch_size)[image]
        lesson = taught(encoded, "mim")
        if self.options.target == "vision":
            tokens = wide(self._patches(lesson.encoded.vision, images))[image]
        else:
            assert lesson.joint is not None
            tokens = wide(self._patches(lesson.joint.vision, images))
        return F.layer_norm(tokens, tokens.shape[-1:])

    def _masked(self, batch: Batch) -> Tensor:
        images = self.views(batch).images
        assert images is not None
        assert images.masked_patches is not None
        return images.masked_patches

    def _grid(self, images: VisionInput) -> tuple[int, int]:
        height, width = images.pixels.shape[-2:]
        side = self.options.patch_size
        if height % side or width % side:
            raise SpecError(
                f"'mim': patches of {side} pixels do not fill images of {height} x {width}. Set patch_size."
            )
        return height // side, width // side

    def _patches(self, features: Features | None, images: VisionInput) -> Tensor:
        """Return the tokens of the grid [P, N, D]: those behind the prefix tokens.

        Raises:
            SpecError: the tokens are no such grid.
        """
        assert features is not None
        rows, columns = self._grid(images)
        tokens = features.tokens.shape[1]
        prefix = tokens - rows * columns
        # with more than four times as many tokens, patches of half the size would fit as well
        if not 0 <= prefix <= MOST_PREFIX_TOKENS or tokens >= 4 * rows * columns:
            raise SpecError(
                f"'mim': {tokens} image tokens are no grid of {rows} x {columns} patches of {self.options.patch_size} "
                "pixels. Set patch_size to the side of a token in pixels; a backbone without such a grid cannot take "
                "masked patches: leave 'mim' out."
            )
        return features.tokens[:, prefix:]
