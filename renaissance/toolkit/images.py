"""Preprocessing of images, one rule for every vision backbone: PIL pictures to uint8 pixels to normalised floats.

Bilinear and bicubic resizing are PyTorch's antialiased ones on bytes: a third of the time of Pillow's, and within a
level or two of its values. A centre crop that keeps a part resizes little more than that part, see `_window`.

Letters in shapes: V images, H and W height and width in pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from renaissance.api import VisionInput
from renaissance.errors import ModelFileError, SampleError, SpecError

Resize = Literal["shortest", "squash"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Decoding = Literal["exact", "fast"]

FILE_NAME = "preprocessor.json"
RESAMPLING: Mapping[str, Image.Resampling] = {name: Image.Resampling[name.upper()] for name in get_args(Interpolation)}
ON_BYTES = ("bilinear", "bicubic")  # what PyTorch resizes on bytes with antialiasing
SEARCHED = 24  # pixels of the resized picture, at least, among which the first one of a window is chosen
REDUCTIONS = (8, 4, 2)  # by which a JPEG file is decoded smaller sooner than whole
ROOM = 1.8  # pixels a side, for each one that is wanted, that fast decoding leaves: with fewer, edges are lost
SHIFT = 1 / 32  # of a resized pixel: a window that begins so near to a pixel of the picture is looked for no further


@dataclass(frozen=True, slots=True)
class ImageProcessor:
    """Resize, crop and normalise images as one backbone was trained to see them.

    image_size: (height, width) in pixels of what the backbone sees. crop: the share of the resized picture that the
    centre crop keeps. resize: "shortest" keeps proportions and fills the frame; "squash" does not keep them.
    mean, std: of each colour channel, on the scale 0 to 1. decoding: of files, see `renaissance.data.pixels`.
    """

    image_size: tuple[int, int]
    _: KW_ONLY
    crop: float = 1.0
    resize: Resize = "shortest"
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    decoding: Decoding = "exact"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SpecError: a value is out of its range.
        """
        fault = _fault(self)
        if fault is not None:
            raise SpecError(f"Image preprocessing: {fault}.")

    def __call__(self, images: Sequence[Image.Image | Tensor]) -> VisionInput:
        """Resize and centre-crop RGB images, PIL pictures or uint8 pixels [3, h, w]; return uint8 pixels [V, 3, H, W].

        Raises:
            SampleError: an image is not RGB.
        """
        pixels = torch.empty((len(images), 3, *self.image_size), dtype=torch.uint8)
        for index, image in enumerate(images):
            pixels[index] = self.fit(rgb_pixels(image, f"Image {index} of {len(images)}"))
        return VisionInput(pixels)

    def fit(self, pixels: Tensor) -> Tensor:
        """Return uint8 pixels [3, H, W] of uint8 pixels [3, h, w]: resized (antialiased), centre-cropped."""
        height, width = self.image_size
        resized_height, resized_width = self._resized_size(*pixels.shape[1:])
        top, left = round((resized_height - height) / 2), round((resized_width - width) / 2)
        if self.interpolation not in ON_BYTES:
            whole = _resized(pixels, (resized_height, resized_width), self.interpolation)
            return whole[:, top : top + height, left : left + width]
        rows = _window(pixels.shape[1], resized_height, top, height)
        columns = _window(pixels.shape[2], resized_width, left, width)
        return _resized_part(pixels, rows, columns, self.interpolation)

    def fit_part(self, pixels: Tensor, *, top: int, left: int, height: int, width: int) -> Tensor:
        """Return uint8 pixels [3, H, W] of a rectangle of uint8 pixels [3, h, w], resized to `image_size`."""
        part = pixels[:, top : top + height, left : left + width]
        return _resized(part, self.image_size, self.interpolation)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return float32 [V, 3, H, W] from uint8 pixels [V, 3, H, W]; floats were normalised before and stay."""
        if pixels.is_floating_point():
            return pixels
        mean = torch.tensor(self.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, 3, 1, 1)
        return torch.div(pixels, 255).sub_(mean).div_(std)

    def reduction(self, height: int, width: int, share: float | None = None) -> int:
        """Return by how much fewer pixels a side (8, 4, 2 or 1) of a picture of this size are enough.

        share: the least share of its area that will be seen, as a part of any place and proportions from 3:4 to 4:3;
        default: what the centre crop sees.
        """
        if share is None:
            wanted = self._resized_size(height, width)
            scale = min(height / wanted[0], width / wanted[1])
        else:
            scale = math.sqrt(height * width * share * 3 / 4) / max(self.image_size)
        return next((reduction for reduction in REDUCTIONS if scale >= ROOM * reduction), 1)

    def resized(self, image_size: tuple[int, int]) -> ImageProcessor:
        """Return the same preprocessing for another size (height, width) in pixels."""
        return replace(self, image_size=image_size)

    def describe(self) -> dict[str, Any]:
        """Return everything that changes the pixels, JSON-able; exact decoding goes without saying."""
        told = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in told.items() if (name, value) != ("decoding", "exact")}

    def save(self, folder: Path) -> None:
        """Write `preprocessor.json` into `folder`."""
        (folder / FILE_NAME).write_text(json.dumps(self.describe(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ImageProcessor:
        """Read what `save` wrote.

        Raises:
            ModelFileError: `preprocessor.json` is missing or damaged.
        """
        path = folder / FILE_NAME
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelFileError(f"{path} cannot be read ({error}). Save or download the model again.") from None
        return cls.from_description(saved, source=str(path))

    @classmethod
    def from_description(cls, described: Any, *, source: str = "preprocessing") -> ImageProcessor:
        """Return the processor that `describe` described; `source` names the description in errors.

        Raises:
            ModelFileError: the description has other fields, or values out of their range.
        """
        names = {field.name for field in fields(cls)} - {"decoding"}
        if not isinstance(described, dict) or set(described) - {"decoding"} != names:
            raise ModelFileError(
                f"{source}: expected exactly the fields {', '.join(sorted(names))}. Save the model again."
            )
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in described.items()}
        try:
            return cls(**values)
        except SpecError as error:
            raise ModelFileError(f"{source}: {error} Save or download the model again.") from None

    def _resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) before the crop, by the rounding of torchvision and timm (both round down)."""
        # the small term undoes the rounding error of a `crop` that is itself a quotient, such as 224 / 248
        frame_height, frame_width = (math.floor(side / self.crop + 1e-6) for side in self.image_size)
        if self.resize == "squash":
            return frame_height, frame_width
        if frame_height * width >= frame_width * height:
            return frame_height, max(frame_width, frame_height * width // height)
        return max(frame_height, frame_width * height // width), frame_width


def batched(images: Sequence[Tensor]) -> VisionInput:
    """Return images, uint8 pixels [3, h, w] each, as one input [V, 3, H, W].

    Images of several sizes are padded with zeros on the right and below, and a mask says which pixels are real.
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    if all(image.shape[1:] == (height, width) for image in images):
        return VisionInput(torch.stack(list(images)))
    pixels = torch.zeros((len(images), 3, height, width), dtype=images[0].dtype)
    mask = torch.zeros((len(images), height, width), dtype=torch.bool)
    for row, image in enumerate(images):
        pixels[row, :, : image.shape[1], : image.shape[2]] = image
        mask[row, : image.shape[1], : image.shape[2]] = True
    return VisionInput(pixels, mask)


def to_pixels(image: Image.Image) -> Tensor:
    """Return uint8 pixels [3, H, W] of an RGB image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def rgb_pixels(image: Image.Image | Tensor, name: str) -> Tensor:
    """Return uint8 pixels [3, H, W] of an RGB image that may be such pixels already.

    Raises:
        SampleError: it is not RGB.
    """
    if isinstance(image, Tensor):
        if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3:
            raise SampleError(f"{name} is {image.dtype} {list(image.shape)}. Give uint8 pixels [3, H, W].")
        return image
    if image.mode != "RGB":
        raise SampleError(f"{name} has mode {image.mode!r}, not RGB. Try: image.convert('RGB').")
    return to_pixels(image)


def _resized(pixels: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Return uint8 pixels [3, H, W] of this size (height, width) of uint8 pixels [3, h, w]."""
    if pixels.shape[1:] == size:
        return pixels
    if interpolation in ON_BYTES:
        resized: Tensor = interpolate(pixels[None], size, mode=interpolation, antialias=True)
        return resized[0]
    picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
    return to_pixels(picture.resize(size[::-1], RESAMPLING[interpolation]))


class _Window(NamedTuple):
    """Along one side: the part `source` of a picture, resized by `factor` into pixels of which `kept` are wanted."""

    source: slice
    factor: float
    kept: slice


def _resized_part(pixels: Tensor, rows: _Window, columns: _Window, interpolation: Interpolation) -> Tensor:
    """Return uint8 pixels [3, H, W], those that two windows keep of uint8 pixels [3, h, w]."""
    part = pixels[None, :, rows.source, columns.source]
    if rows.factor != 1 or columns.factor != 1:
        part = interpolate(part, scale_factor=(rows.factor, columns.factor), mode=interpolation, antialias=True)
    return part[0, :, rows.kept, columns.kept]


@lru_cache(4096)  # photographs come in few sizes
def _window(length: int, resized: int, start: int, kept: int) -> _Window:
    """Return the part of a side that is enough for `kept` pixels from `start` of it, resized from `length`.

    It begins with the picture, or a little before what is kept, where a pixel of the resized side begins nearly on a
    pixel of the picture: resizing the part is then resizing the whole, but for a shift by a small fraction of a pixel.
    """
    scale = length / resized
    beside = math.ceil(2 / min(scale, 1.0)) + 1  # an antialiased bicubic pixel sees two pixels each way
    first = _first(start - beside, scale)
    begin, end = round(first * scale), min(length, math.ceil((start + kept + beside) * scale))
    factor = resized / length * (1 + 1e-9)  # PyTorch rounds sizes down: no rounding error may take a pixel
    if math.floor((end - begin) * factor) == end - begin:
        # PyTorch leaves a side alone that keeps its size; so it does with the whole one, if that does
        begin, end, first = 0, length, 0
    return _Window(slice(begin, end), 1.0 if length == resized else factor, slice(start - first, start - first + kept))


def _first(last: int, scale: float) -> int:
    """Return the pixel of the resized side, at most `last`, at which to begin: one nearly on a pixel of the picture."""
    if last <= 0:
        return 0
    places = range(last, max(-1, last - max(SEARCHED, math.ceil(1 / scale))), -1)
    shifts = [abs(place * scale - round(place * scale)) for place in places]
    near = (place for place, shift in zip(places, shifts, strict=True) if shift <= SHIFT * scale)
    return next(near, places[shifts.index(min(shifts))])


def _fault(processor: ImageProcessor) -> str | None:
    """Return what is wrong with these values, or None."""
    size = processor.image_size
    if len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return f"image_size must be (height, width), whole numbers above 0, not {size!r}"
    if not _are_numbers([processor.crop]) or not 0 < processor.crop <= 1:
        return f"crop must be above 0 and at most 1, not {processor.crop!r}"
    if processor.resize not in get_args(Resize):
        return f"resize must be one of {', '.join(get_args(Resize))}, not {processor.resize!r}"
    if processor.interpolation not in get_args(Interpolation):
        return f"interpolation must be one of {', '.join(get_args(Interpolation))}, not {processor.interpolation!r}"
    if processor.decoding not in get_args(Decoding):
        return f"decoding must be one of {', '.join(get_args(Decoding))}, not {processor.decoding!r}"
    if len(processor.mean) != 3 or not _are_numbers(processor.mean):
        return f"mean must be three numbers, not {processor.mean!r}"
    if len(processor.std) != 3 or not _are_numbers(processor.std) or not all(value > 0 for value in processor.std):
        return f"std must be three numbers above 0, not {processor.std!r}"
    return None


def _are_numbers(values: Sequence[object]) -> bool:
    return all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) for value in values
    )
