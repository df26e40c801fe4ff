"""Training augmentation: a pure function of the picture and a seed, the same in every process and worker.

Letters in shapes: H and W height and width in pixels of what the backbone sees.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from renaissance.recipe.training import Augmentation
from renaissance.toolkit.images import ImageProcessor, rgb_pixels


def augment(image: Image.Image | Tensor, processor: ImageProcessor, changes: Augmentation, seed: int) -> Tensor:
    """Return uint8 pixels [3, H, W] of an RGB picture, or of its pixels; `seed` alone decides what happens to it.

    The global generator of torch is left as it was.

    Raises:
        SampleError: the picture is not RGB.
    """
    if not changes.any:
        return processor([image]).pixels[0]
    with torch.random.fork_rng(devices=()):
        # not torch.manual_seed, which would seed the accelerators as well: their generators are not forked here
        torch.default_generator.manual_seed(seed)
        changed: Tensor = _colours_and_shapes(changes, processor)(_part(image, changes, processor))
    return changed


def _part(image: Image.Image | Tensor, changes: Augmentation, processor: ImageProcessor) -> Tensor:
    """Return uint8 pixels [3, H, W] of a random part of the picture, or of the part that evaluation sees."""
    if changes.crop is None:
        return processor([image]).pixels[0]
    pixels = rgb_pixels(image, "The image")
    part = v2.RandomResizedCrop(processor.image_size, scale=changes.crop).make_params([pixels])
    return processor.fit_part(pixels, **part)


def _colours_and_shapes(changes: Augmentation, processor: ImageProcessor) -> nn.Module:
    """Return what is done to uint8 pixels [3, H, W]; areas that a rotation uncovers get the mean colour."""
    steps: list[nn.Module] = [v2.RandomHorizontalFlip(0.5 if changes.flip else 0.0)]
    if changes.randaugment:
        fill = [round(255 * value) for value in processor.mean]
        steps.append(v2.RandAugment(changes.randaugment, changes.magnitude, fill=fill))
    return nn.Sequential(*steps)
