"""The header of a JPEG file, as far as it takes to know that its pixels need no more than decoding."""

from __future__ import annotations

from collections.abc import Iterator

START, SCAN, JFIF = 0xD8, 0xDA, 0xE0
FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
TABLES = (0xC4, 0xDB, 0xDD)
# comments, and segments of applications but those with EXIF, profiles, further pictures (1, 2) and other colours (14)
REMARKS = (0xFE, *range(0xE3, 0xEE))


def plain_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a JPEG of three 8-bit colours, if nothing in its header needs a closer look.

    None: something does, such as EXIF, an unusual colour space or a fault; `renaissance.data.decode` gives the look.
    """
    size = None
    for kind, segment in _segments(data):
        if kind == SCAN:
            return size
        if kind in FRAMES and size is None:
            size = _colour_size(segment)
            plain = size is not None
        elif kind == JFIF:
            plain = segment[:5] == b"JFIF\0" and len(segment) >= 14
        else:
            plain = kind in TABLES or kind in REMARKS
        if not plain:
            return None
    return None


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (marker, content) of the segments of a JPEG file, as long as one follows the other without a fault."""
    if data[:2] != bytes((0xFF, START)):
        return
    place = 2
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4])
        if not place + 4 <= end <= len(data):
            return
        yield data[place + 1], data[place + 4 : end]
        place = end


def _colour_size(frame: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a frame of three 8-bit components, if it is one and not empty."""
    height, width = int.from_bytes(frame[1:3]), int.from_bytes(frame[3:5])
    plain = len(frame) == 15 and frame[0] == 8 and frame[5] == 3 and height > 0 and width > 0
    return (width, height) if plain else None
