"""Pictures that look the same though their bytes differ: re-encoded, resized, or saved in another format.

A perceptual hash (64 bits, by the library imagehash) finds candidates; their colours on a coarse grid decide. Grey
hashes alone take a red square for a green one, and two faces with other eyes for one.

Letters in shapes: N images of one side, M of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from PIL import Image

from renaissance.data.decode import decode
from renaissance.data.records import ImageSource
from renaissance.errors import MissingPackageError, SampleError

BITS = 64
# Measured on 400 drawings, halved and saved as JPEG of quality 75: 99% of each of 64, 136 and 160 pixels are within 6
# bits, and of pairs of different drawings 15 of 79,800.
MAX_BITS = 6
# The same copies differ in one cell of the grid by up to 46 of 255 at 160 pixels and 63 at 136: 99% and 96% of them are
# within 40, those of 64 pixels mostly not. Saved as JPEG at their size, all within 22. Different drawings: 70 and more.
GRID = 16
MAX_DIFFERENCE = 40
# At so many candidates of one picture, such as pages of one colour, the nearest are compared.
CANDIDATES = 8
CHUNK = 4096


def perceptual_hasher() -> Callable[[Image.Image], int]:
    """Return a function from an RGB picture to its 64 bits.

    Raises:
        MissingPackageError: imagehash is not installed.
    """
    try:
        from imagehash import phash
    except ImportError:
        raise MissingPackageError(
            "The doctor compares pictures with the package imagehash, which is not installed. "
            "Try: pip install 'renaissance-vl[doctor]'"
        ) from None

    def hashed(picture: Image.Image) -> int:
        return int.from_bytes(np.packbits(phash(picture).hash).tobytes(), "big")

    return hashed


def near(these: np.ndarray, those: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield (i, j) with these[i] [N] and those[j] [M] at most `MAX_BITS` apart: of each i, the nearest `CANDIDATES`.

    Hashes so near are equal in one of `MAX_BITS + 1` bands, so only those with an equal band are compared.
    """
    best: dict[int, dict[int, int]] = {}
    for band in _bands():
        keys = those & band
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        for start in range(0, len(these), CHUNK):
            wanted = these[start : start + CHUNK]
            low, high = (np.searchsorted(ordered, wanted & band, side=side) for side in ("left", "right"))
            for offset in np.flatnonzero(high > low):
                others = order[low[offset] : high[offset]]
                bits = np.bitwise_count(those[others] ^ wanted[offset])
                for other, distance in zip(others[bits <= MAX_BITS], bits[bits <= MAX_BITS], strict=True):
                    best.setdefault(start + int(offset), {})[int(other)] = int(distance)
    for index, found in sorted(best.items()):
        for other in sorted(found, key=lambda other: (found[other], other))[:CANDIDATES]:
            yield index, other


def look_alike(one: ImageSource, other: ImageSource) -> bool:
    """Return whether two images have the same colours in each cell of a coarse grid; one that is damaged has none."""
    try:
        grids = [_grid(decode(image.read(), name=image.name)) for image in (one, other)]
    except SampleError:
        return False
    return int(np.abs(grids[0] - grids[1]).max()) <= MAX_DIFFERENCE


def _grid(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((GRID, GRID), Image.Resampling.BOX), dtype=np.int16)


def _bands() -> list[np.uint64]:
    """Return masks that share out the bits."""
    edges = [BITS * number // (MAX_BITS + 1) for number in range(MAX_BITS + 2)]
    return [np.uint64((1 << high) - (1 << low)) for low, high in pairwise(edges)]
