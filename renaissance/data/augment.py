"""Training augmentation: a pure function of the picture and a seed, the same in every process and worker.

Letters in shapes: H and W height and width in pixels of what the backbone sees.
"""

from __future__ import annotations

import math
import random

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from renaissance.data.hashing import stable_hash
from renaissance.data.sampling import sample_seed
from renaissance.recipe.training import Augmentation
from renaissance.toolkit.images import ImageProcessor, rgb_pixels

TRIES = 10
LONGEST = 4 / 3  # the longer side of a random part by the shorter one, at most


def drawn_seed(changes: Augmentation, seed: int, epoch: int, sample_id: str) -> int:
    """Return what decides how a sample looks in an epoch: another seed in each, or with `views` one of so many."""
    drawn = sample_seed(seed, epoch, sample_id)
    return drawn if changes.views is None else view_seed(seed, drawn % changes.views, sample_id)


def view_seed(seed: int, number: int, sample_id: str) -> int:
    """Return what decides how view `number` of a sample looks."""
    return stable_hash("augmented view", seed, number, sample_id)


def augment(image: Image.Image | Tensor, processor: ImageProcessor, changes: Augmentation, seed: int) -> Tensor:
    """Return uint8 pixels [3, H, W] of an RGB picture, or of its pixels; `seed` alone decides what happens to it.

    The global generator of torch is left as it was.

    Raises:
        SampleError: the picture is not RGB.
    """
    draws = random.Random(seed)
    pixels = _part(image, changes, processor, draws)
    if changes.flip and draws.random() < 0.5:
        pixels = pixels.flip(-1)
    return _randaugmented(pixels, changes, processor, seed) if changes.randaugment else pixels


def _part(
    image: Image.Image | Tensor, changes: Augmentation, processor: ImageProcessor, draws: random.Random
) -> Tensor:
    """Return uint8 pixels [3, H, W] of a random part of the picture, or of the part that evaluation sees."""
    if changes.crop is None:
        return processor([image]).pixels[0]
    pixels = rgb_pixels(image, "The image")
    top, left, height, width = random_part(pixels.shape[1], pixels.shape[2], changes.crop, draws)
    return processor.fit_part(pixels, top=top, left=left, height=height, width=width)


def random_part(
    height: int, width: int, shares: tuple[float, float], draws: random.Random
) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) in pixels of a random part of a picture.

    Its share of the area is drawn from `shares`, its proportions from 3:4 to 4:3. Where `TRIES` of them do not fit
    into the picture, it is the largest one in the middle that has such proportions.
    """
    for _ in range(TRIES):
        side = math.sqrt(height * width * draws.uniform(*shares))
        stretch = math.sqrt(LONGEST ** draws.uniform(-1, 1))
        rows, columns = round(side / stretch), round(side * stretch)
        if 0 < rows <= height and 0 < columns <= width:
            # int(random() * n) and not randrange: Python keeps the former the same for ever
            top, left = (int(draws.random() * (room + 1)) for room in (height - rows, width - columns))
            return top, left, rows, columns
    rows, columns = min(height, round(width * LONGEST)), min(width, round(height * LONGEST))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _randaugmented(pixels: Tensor, changes: Augmentation, processor: ImageProcessor, seed: int) -> Tensor:
    """Return uint8 pixels [3, H, W] after RandAugment; areas that a rotation uncovers get the mean colour."""
    fill = [round(255 * value) for value in processor.mean]
    with torch.random.fork_rng(devices=()):
        # not torch.manual_seed, which would seed the accelerators as well: their generators are not forked here
        torch.default_generator.manual_seed(seed)
        changed: Tensor = v2.RandAugment(changes.randaugment, changes.magnitude, fill=fill)(pixels)
    return changed
