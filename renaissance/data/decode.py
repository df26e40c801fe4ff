"""The one image decoder, for training, evaluation and inference alike: bytes to an upright RGB picture.

`renaissance.data.pixels` gives the same pixels as a tensor, sooner.

| what the file holds | outcome |
|---|---|
| JPEG, PNG, WebP, BMP, TIFF in 8-bit RGB | ok |
| GIF, animated WebP, PNG or TIFF | the first frame |
| EXIF orientation | applied; boxes of the sample must have been given for the upright picture |
| grey (L), 1-bit (1), palette (P) without transparency | the same colours in RGB |
| CMYK, YCbCr, LAB | converted to RGB by Pillow, without the colour profile of the file |
| transparency (RGBA, LA, PA, RGBa, or a transparent colour) | composited on white |
| 16-bit RGB and RGBA | the upper byte of each value, as Pillow reads them |
| 16-bit grey (I;16 in each byte order, I of a PNG) | value / 257, rounded: 0 stays 0, 65535 becomes 255 |
| 32-bit integers (I of a TIFF) | from 0 to 65535: as 16-bit; anything else is refused |
| float (F) | from 0 to 1: value x 255, rounded; else from 0 to 255: rounded; anything else is refused |
| more than 36 megapixels | refused from the header, before a pixel is decoded |
| another format, a truncated or damaged file, a warning of Pillow | refused |

Every refusal is a `SampleError` that names the sample, the fault and the next step.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from renaissance.data.reads import read_image
from renaissance.data.records import Record
from renaissance.errors import SampleError
from renaissance.spec import shown

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 36_000_000
ORIENTATION = ExifTags.Base.Orientation
SKIPPING = ", or skip such samples with --on-bad-sample skip"
NEXT_STEP = f"Repair or remove it{SKIPPING}"


def decode(data: bytes, *, name: str) -> Image.Image:
    """Return the upright RGB picture in these bytes; `name` says in errors which sample it is.

    Raises:
        SampleError: the bytes are no picture that the table of this module accepts.
    """
    with opened(data, name=name) as picture:
        picture.load()
        return picture if is_plain_jpeg(picture) else to_rgb(picture, name)


@contextmanager
def opened(data: bytes, *, name: str) -> Iterator[Image.Image]:
    """Give the picture in these bytes, of which the header alone was read; what then goes wrong is refused by name.

    Raises:
        SampleError: the bytes are no picture that the table of this module accepts.
    """
    if not data:
        raise SampleError(f"{name}: the image file is empty. {NEXT_STEP}.")
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise SampleError(
            f"{name}: something set PIL.ImageFile.LOAD_TRUNCATED_IMAGES, which fills damaged pictures with grey. "
            "Set it to False."
        )
    with _refusal(name), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        _check_size(picture, name)
        yield picture


def is_plain_jpeg(picture: Image.Image) -> bool:
    """Return whether a picture is a JPEG in upright RGB: nothing but decoding is left to do."""
    return picture.format == "JPEG" and picture.mode == "RGB" and picture.getexif().get(ORIENTATION, 1) == 1


def read_record(record: Record) -> bytes:
    """Return the encoded image of a record.

    Raises:
        SampleError: it is missing or cannot be read; the message names its row.
    """
    try:
        return read_image(record.image)
    except SampleError as error:
        raise SampleError(f"{record.row}: {error}") from None


def open_record(record: Record) -> Image.Image:
    """Return the upright RGB picture of a record.

    Raises:
        SampleError: it cannot be read or decoded; the message names its row.
    """
    return decode(read_record(record), name=f"{record.row}: {record.image.name}")


def open_image(source: Path | bytes | Image.Image, *, name: str) -> Image.Image:
    """Return the upright RGB picture of a file, of bytes, or of a picture that is open already.

    Raises:
        SampleError: the file cannot be read, or is no picture that the table of this module accepts.
    """
    match source:
        case bytes():
            return decode(source, name=name)
        case Image.Image():
            _check_size(source, name)
            with _refusal(name):
                return to_rgb(source, name)
        case _:
            try:
                data = source.read_bytes()
            except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
                reason = getattr(error, "strerror", None) or error
                raise SampleError(f"{name}: {shown(source, 300)} cannot be read ({reason}). {NEXT_STEP}.") from None
            return decode(data, name=name)


@contextmanager
def _refusal(name: str) -> Iterator[None]:
    """Turn whatever goes wrong with a picture, warnings included, into a `SampleError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except (SampleError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise SampleError(f"{name}: not an image in one of the formats {', '.join(FORMATS)}. {NEXT_STEP}.") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise SampleError(f"{name}: too large ({_reason(error)}). {NEXT_STEP}.") from None
    # a damaged file makes Pillow's parsers raise nearly anything: OSError, SyntaxError, struct.error, KeyError ..
    except Exception as error:
        raise SampleError(f"{name}: the image is damaged ({_reason(error)}). {NEXT_STEP}.") from None


def _check_size(picture: Image.Image, name: str) -> None:
    pixels = picture.width * picture.height
    if pixels > MAX_PIXELS:
        raise SampleError(
            f"{name}: {picture.width} x {picture.height} pixels are more than the {MAX_PIXELS // 10**6} megapixels "
            f"that are accepted. Make the picture smaller{SKIPPING}."
        )
    if pixels == 0:
        raise SampleError(f"{name}: the image has no pixels. {NEXT_STEP}.")


def to_rgb(picture: Image.Image, name: str) -> Image.Image:
    """Return the upright RGB picture of one that is open.

    Raises:
        SampleError: its values have no known white.
    """
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "F":
        return _from_values(_scaled_floats(np.asarray(upright), name))
    if upright.mode == "I" or upright.mode.startswith("I;16"):
        return _from_values(_scaled_integers(np.asarray(upright), upright.info.get("transparency"), name))
    if upright.has_transparency_data:
        coloured = upright.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return upright.convert("RGB")


def _scaled_integers(values: np.ndarray, transparent: int | None, name: str) -> np.ndarray:
    """Return grey values [H, W] from 0 to 255 of 16-bit integers; the transparent value, if any, becomes white."""
    if values.min() < 0 or values.max() > 65535:
        raise SampleError(
            f"{name}: integer grey values from {values.min()} to {values.max()} have no known white. "
            "Save the picture with 16 or 8 bits."
        )
    return np.where(values == transparent, 255.0, values / 257)


def _scaled_floats(values: np.ndarray, name: str) -> np.ndarray:
    """Return grey values [H, W] from 0 to 255 of floats on the scale 0 to 1, or 0 to 255."""
    low, high = float(values.min()), float(values.max())  # NaN fails each comparison below
    if low >= 0 and high <= 1:
        return values * 255.0
    if low >= 0 and high <= 255:
        return values
    raise SampleError(f"{name}: float grey values from {low} to {high} have no known white. Scale them to 0 to 1.")


def _from_values(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
