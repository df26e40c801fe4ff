"""Inputs to trace and to compare with: noise as images, and texts of several lengths, as the processors give them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from renaissance.assemble import Encoder
from renaissance.errors import ExportError
from renaissance.exporting.graphs import Graph

WORDS = "a red cup on the table"
# texts of some towers may have many thousands of tokens, and the cost of attention grows with their square
LONGEST = 512


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many inputs, and how often the shortest and the longest text say WORDS."""

    count: int
    shortest: int
    longest: int


TRACED = Sizes(3, 1, 2)


def checked_sizes(graph: Graph, max_tokens: int) -> list[Sizes]:
    """Return other batch sizes than the traced one and, for texts, other lengths, up to the longest."""
    if not graph.reads_texts:
        return [Sizes(1, 1, 1), Sizes(5, 1, 1)]
    longest = min(max_tokens, LONGEST) // len(WORDS.split()) + 1
    return [Sizes(1, 1, 1), Sizes(5, 1, 3), Sizes(2, 1, longest)]


def samples(encoder: Encoder, graph: Graph, sizes: Sizes) -> dict[str, Tensor]:
    """Return the inputs of a graph by name, contiguous; texts of unlike lengths are padded.

    Raises:
        ExportError: the processor gives more than pixels, or more than token ids and their mask.
    """
    made = _texts(encoder, sizes) if graph.reads_texts else {}
    if "pixels" in graph.axes:
        made["pixels"] = _images(encoder, sizes)
    return {name: made[name].contiguous() for name in graph.axes}


def shapes(inputs: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Return the shape of each input."""
    return {name: list(value.shape) for name, value in inputs.items()}


def _images(encoder: Encoder, sizes: Sizes) -> Tensor:
    height, width = encoder.vision.processor.image_size
    noise = np.random.default_rng(sizes.count).integers(0, 256, (sizes.count, height, width, 3), dtype=np.uint8)
    given = encoder.vision.processor([Image.fromarray(picture) for picture in noise])
    if given.mask is not None or given.masked_patches is not None:
        raise ExportError(
            "The vision tower takes images of several sizes with a mask, and exported graphs take one size. "
            "Export part 'text', or a model with another vision tower."
        )
    pixels: Tensor = given.pixels
    return pixels


def _texts(encoder: Encoder, sizes: Sizes) -> dict[str, Tensor]:
    given = encoder.text.processor(list(_captions(sizes)))
    return {"token_ids": given.token_ids, "mask": given.mask}


def _captions(sizes: Sizes) -> Iterator[str]:
    """Yield texts from the longest to the shortest."""
    for index in range(sizes.count):
        share = 1 - index / max(sizes.count - 1, 1)
        yield " ".join([WORDS] * (sizes.shortest + round(share * (sizes.longest - sizes.shortest))))
