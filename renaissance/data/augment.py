"""Training augmentation: a pure function of the picture and a seed, the same in every process and worker.

Letters in shapes: H and W height and width in pixels of what the backbone sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from renaissance.errors import SpecError
from renaissance.toolkit.images import ImageProcessor, to_pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What may be done to a training picture; the default does nothing.

    crop_scale: smallest and largest share of the area that a random crop keeps (None: the crop of evaluation).
    flip: mirror every second picture; captions that say left and right forbid it. randaugment_ops: random operations
    for each picture (0: none); randaugment_magnitude: their strength, 0 to 30.
    """

    crop_scale: tuple[float, float] | None = None
    flip: bool = False
    randaugment_ops: int = 0
    randaugment_magnitude: int = 9

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SpecError: a value is out of its range.
        """
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise SpecError(
                f"Augmentation: crop_scale must be (min, max) with 0 < min <= max <= 1, not {self.crop_scale}."
            )
        if self.randaugment_ops < 0:
            raise SpecError(f"Augmentation: randaugment_ops must be 0 or more, not {self.randaugment_ops}.")
        if not 0 <= self.randaugment_magnitude <= 30:
            raise SpecError(f"Augmentation: randaugment_magnitude must be 0 to 30, not {self.randaugment_magnitude}.")

    @property
    def active(self) -> bool:
        """Whether a picture can come out otherwise than in evaluation."""
        return self.crop_scale is not None or self.flip or self.randaugment_ops > 0

    def augment(self, image: Image.Image, processor: ImageProcessor, seed: int) -> Tensor:
        """Return uint8 pixels [3, H, W] of an RGB picture; `seed` alone decides what happens to it.

        The global generator of torch is left as it was.
        """
        if not self.active:
            return processor([image]).pixels[0]
        with torch.random.fork_rng(devices=()):
            # not torch.manual_seed, which would seed the accelerators as well: their generators are not forked here
            torch.default_generator.manual_seed(seed)
            changed: Tensor = self._colours_and_shapes(processor)(self._part(image, processor))
        return changed

    def _part(self, image: Image.Image, processor: ImageProcessor) -> Tensor:
        """Return uint8 pixels [3, H, W] of a random part of the picture, or of the part that evaluation sees."""
        if self.crop_scale is None:
            return processor([image]).pixels[0]
        # on the picture, not on a tensor: PIL resizes, as in evaluation
        crop = v2.RandomResizedCrop(
            processor.image_size,
            scale=self.crop_scale,
            interpolation=v2.InterpolationMode(processor.interpolation),
        )
        return to_pixels(crop(image))

    def _colours_and_shapes(self, processor: ImageProcessor) -> nn.Module:
        """Return what is done to uint8 pixels [3, H, W]; areas that a rotation uncovers get the mean colour."""
        steps: list[nn.Module] = [v2.RandomHorizontalFlip(0.5 if self.flip else 0.0)]
        if self.randaugment_ops:
            fill = [round(255 * value) for value in processor.mean]
            steps.append(v2.RandAugment(self.randaugment_ops, self.randaugment_magnitude, fill=fill))
        return nn.Sequential(*steps)
