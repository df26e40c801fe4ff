"""The pixels that `transformers` vision encoders take."""

from __future__ import annotations

from torch import Tensor, nn

from renaissance.api import VisionInput
from renaissance.errors import SpecError
from renaissance.toolkit.images import ImageProcessor


def normalised(inputs: VisionInput, processor: ImageProcessor, model: nn.Module) -> Tensor:
    """Return pixels [V, 3, H, W] in the precision of the model's weights.

    Raises:
        SpecError: the pixels have another size than `processor.image_size`, or patches are masked or padded.
    """
    if tuple(inputs.pixels.shape[-2:]) != processor.image_size:
        height, width = processor.image_size
        raise SpecError(
            f"Images of {inputs.pixels.shape[-2]} x {inputs.pixels.shape[-1]} pixels; this backbone takes {height} x "
            f"{width}. Use its processor, or build it with another image_size."
        )
    if inputs.mask is not None or inputs.masked_patches is not None:
        raise SpecError("This backbone takes neither padded images nor masked patches. Leave both masks out.")
    return processor.normalise(inputs.pixels).to(next(model.parameters()).dtype)
