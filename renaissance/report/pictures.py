"""Pictures that results name: read from the study's folder alone, made small, and never more than a page can carry."""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

_LARGEST = 50_000_000  # pixels, before it is made small
_DATA = re.compile(r"data:image/(?:png|jpeg|webp);base64,", re.A)
_FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True, slots=True)
class Picture:
    """A small picture: its bytes, its size in pixels, and what it shows in words."""

    name: str
    alt: str
    data: bytes
    suffix: str
    width: int
    height: int

    @property
    def uri(self) -> str:
        """The picture as an address that holds it."""
        return f"data:image/{self.suffix};base64,{base64.b64encode(self.data).decode()}"

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.name}.{self.suffix}"


@dataclass(slots=True)
class Pictures:
    """The pictures of one report, with room for so many bytes, which a section sets; what was left out is counted."""

    folder: Path
    room: int = 0
    kept: list[Picture] = field(default_factory=list)
    left_out: int = 0

    def read(self, source: str, name: str, alt: str, *, side: int) -> Picture | None:
        """Return the picture at a path in the folder, or of a data URI; None, and counted: it cannot be shown.

        side: its greatest width and height in pixels.
        """
        data = _bytes(self.folder, source)
        small = None if data is None else _small(data, side)
        if small is None or len(small[0]) > self.room:
            self.left_out += 1
            return None
        encoded, suffix, (width, height) = small
        self.room -= len(encoded)
        picture = Picture(name, alt, encoded, suffix, width, height)
        self.kept.append(picture)
        return picture


def inside(folder: Path, path: str) -> Path | None:
    """Return a path in a folder; None where it leads out of it."""
    found = (folder / path).resolve()
    return found if found.is_relative_to(folder.resolve()) else None


def _bytes(folder: Path, source: str) -> bytes | None:
    data = _DATA.match(source)
    try:
        if data is not None:
            return base64.b64decode(source[data.end() :], validate=True)
        for place in (folder, folder / "figures"):
            path = inside(folder, str(place.relative_to(folder) / source))
            if path is not None and path.is_file():
                return path.read_bytes()
    except (OSError, ValueError, binascii.Error):
        return None
    return None


def _small(data: bytes, side: int) -> tuple[bytes, str, tuple[int, int]] | None:
    """Return a picture that fits a square, as PNG where that is hardly larger than WebP; None: it is no picture."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            warnings.simplefilter("ignore")  # of metadata, which is not kept
            if opened.width * opened.height > _LARGEST:
                return None
            image = opened.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None
    clear = image.getchannel("A").histogram()[255] < image.width * image.height
    image = image if clear else image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    as_png = _saved(image, "PNG", optimize=True)
    as_webp = _saved(image, "WEBP", quality=75, method=6)
    best = (as_png, "png") if len(as_png) <= 1.3 * len(as_webp) else (as_webp, "webp")
    return *best, image.size


def _saved(image: Image.Image, kind: str, **options: bool | int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
