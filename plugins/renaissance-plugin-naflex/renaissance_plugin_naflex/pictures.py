"""Pictures as NaFlex sees them: resized to as many whole patches as allowed, in their own proportions.

Letters in shapes: V images, H and W height and width in pixels, N patches, P side of a patch in pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers.models.siglip2.image_processing_siglip2 import get_image_size_for_max_num_patches

from renaissance.api import VisionInput
from renaissance.errors import ModelFileError, SpecError
from renaissance.toolkit.images import ImageProcessor, batched, rgb_pixels

FILE_NAME = "preprocessor.json"
# pixels from 0 to 1 become numbers from -1 to 1
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class NaflexProcessor:
    """The preprocessing of SigLIP 2 NaFlex: bilinear, antialiased, to at most `max_patches` patches."""

    max_patches: int
    patch_size: int

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels of what becomes of a square picture."""
        side = math.isqrt(self.max_patches) * self.patch_size
        return side, side

    @property
    def mean(self) -> tuple[float, float, float]:
        """Of each colour channel, on the scale 0 to 1."""
        return HALF

    @property
    def std(self) -> tuple[float, float, float]:
        """Of each colour channel, on the scale 0 to 1."""
        return HALF

    def __call__(self, images: Sequence[Image.Image | Tensor]) -> VisionInput:
        """Resize RGB images; return uint8 pixels [V, 3, H, W], padded right and below, and a mask where they differ.

        Raises:
            SampleError: an image is not RGB.
        """
        pixels = [rgb_pixels(image, f"Image {index} of {len(images)}") for index, image in enumerate(images)]
        return batched([self.fit_part(one, top=0, left=0, height=one.shape[1], width=one.shape[2]) for one in pixels])

    def fit_part(self, pixels: Tensor, *, top: int, left: int, height: int, width: int) -> Tensor:
        """Return uint8 pixels [3, H, W] of a rectangle of uint8 pixels [3, h, w], resized as a picture of its own."""
        size = get_image_size_for_max_num_patches(height, width, self.patch_size, self.max_patches)
        return self._frame(size).fit_part(pixels, top=top, left=left, height=height, width=width)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return float32 [V, 3, H, W] from uint8 pixels [V, 3, H, W]; floats were normalised before and stay."""
        return self._frame(self.image_size).normalise(pixels)

    def _frame(self, size: tuple[int, int]) -> ImageProcessor:
        return ImageProcessor(size, resize="squash", interpolation="bilinear", mean=self.mean, std=self.std)

    def resized(self, size: int) -> NaflexProcessor:
        """Return the same preprocessing for as many patches as a square picture of `size` pixels a side has.

        Raises:
            SpecError: no whole patches fill that.
        """
        if size < self.patch_size or size % self.patch_size:
            nearest = max(1, round(size / self.patch_size)) * self.patch_size
            raise SpecError(
                f"naflex: image_size={size} is no multiple of {self.patch_size}, the side of a patch in pixels. "
                f"Use image_size={nearest}."
            )
        return replace(self, max_patches=(size // self.patch_size) ** 2)

    def describe(self) -> Mapping[str, Any]:
        """Return everything that changes the pixels, JSON-able."""
        fixed = {"proportions": "native", "interpolation": "bilinear", "mean": list(HALF), "std": list(HALF)}
        return {**asdict(self), **fixed}

    def save(self, folder: Path) -> None:
        """Write `preprocessor.json` into `folder`."""
        (folder / FILE_NAME).write_text(json.dumps(self.describe(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> NaflexProcessor:
        """Read what `save` wrote.

        Raises:
            ModelFileError: it is missing, damaged, or of another preprocessing.
        """
        path = folder / FILE_NAME
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            loaded = cls(max_patches=saved["max_patches"], patch_size=saved["patch_size"])
            same = loaded.describe() == saved
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ModelFileError(f"{path} cannot be read ({error}). Save or download the model again.") from None
        if not same:
            raise ModelFileError(f"{path} is no preprocessing of NaFlex. Save or download the model again.")
        return loaded


def grids(inputs: VisionInput, side: int) -> list[tuple[int, int]]:
    """Return the (rows, columns) of patches of `side` pixels that each image has.

    Raises:
        SpecError: an image is no rectangle of whole patches that begins at the top left.
    """
    count, _, height, width = inputs.pixels.shape
    if inputs.mask is None:
        sizes = [(height, width)] * count
        straight = True
    else:
        extents = torch.stack([inputs.mask.any(2).sum(1), inputs.mask.any(1).sum(1)], dim=1)  # [V, 2]
        sizes = [(rows, columns) for rows, columns in extents.tolist()]
        frame = (torch.arange(height, device=extents.device), torch.arange(width, device=extents.device))
        inside = (frame[0] < extents[:, :1])[:, :, None] & (frame[1] < extents[:, 1:])[:, None]  # [V, H, W]
        straight = torch.equal(inside, inputs.mask)
    odd = next((size for size in sizes if not straight or min(size) < side or any(s % side for s in size)), None)
    if odd is not None:
        raise SpecError(
            f"naflex: an image of {odd[0]} x {odd[1]} pixels is no rectangle of whole patches of {side} pixels a side "
            "at the top left of its frame. Prepare images with the backbone's own processor."
        )
    return [(rows // side, columns // side) for rows, columns in sizes]


def packed(pixels: Tensor, sizes: Sequence[tuple[int, int]], side: int, length: int) -> tuple[Tensor, Tensor]:
    """Return the patches of each image row by row, then padding: float [V, N, 3 P P], and their mask bool [V, N].

    pixels: float [V, 3, H, W]; sizes: (rows, columns) of patches of each image; N is `length`.
    """
    count, channels, height, width = pixels.shape
    rows, columns = height // side, width // side
    whole = pixels.reshape(count, channels, rows, side, columns, side)
    whole = whole.permute(0, 2, 4, 3, 5, 1).reshape(count, rows * columns, -1)  # the colours of a pixel side by side
    place = torch.arange(length, device=pixels.device)
    grid = torch.tensor(sizes, device=pixels.device)  # [V, 2]
    real = place < grid.prod(1, keepdim=True)  # [V, N]
    across = grid[:, 1:]
    source = (place // across * columns + place % across).masked_fill(~real, 0)
    chosen = whole.gather(1, source.unsqueeze(-1).expand(-1, -1, whole.shape[-1]))
    return chosen.masked_fill(~real.unsqueeze(-1), 0.0), real
