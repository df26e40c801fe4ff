"""What every backbone must hold beside the checks of `backbones`: order, and what its processor makes.

Letters in shapes: B inputs, T texts, N tokens, L tokens of a text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from renaissance.api import Features, TextInput, VisionInput
from renaissance.testing.subjects import TOLERANCE, NotApplicable, Subject, check_equal, failure, token_grid

SIZES = ((40, 24), (24, 40), (7, 90))  # pixels: wide, tall, and thinner than a patch
LONG = " ".join(["a red cup stands on the old table"] * 200)


@torch.no_grad()
def _order(subject: Subject) -> None:
    """What it says of a token depends on where the others stand: words of a text, patches of an image."""
    if subject.facts.positions == "none":
        raise NotApplicable("it says that it does not tell its tokens apart")
    plain, moved, places = _rearranged(subject)
    seen, expected = moved.tokens, plain.tokens.gather(1, places.unsqueeze(-1).expand_as(plain.tokens))
    apart = float((seen - expected)[plain.mask].abs().max() / expected.abs().max().clamp(min=1))
    if apart <= TOLERANCE:
        raise failure("order", "the same tokens, rearranged, when the input is", 'others, or positions="none" declared')


def _rearranged(subject: Subject) -> tuple[Features, Features, Tensor]:
    """Return the features of inputs, those of the same rearranged, and where each token comes from, int64 [B, N]."""
    inputs = subject.inputs()
    plain: Features = subject.backbone(inputs)
    if subject.modality == "text":
        places = _reversed_words(inputs, subject.backbone.processor.facts.special_ids)
        ids = inputs.token_ids.gather(1, places)
        return plain, subject.backbone(replace(inputs, token_ids=ids, words=None)), places
    if getattr(subject.backbone, "grid", ()) is None:
        raise NotApplicable("its tokens lie in no order of places")
    (rows, columns), prefix = token_grid(subject, plain.tokens.shape[1])
    height, rest = divmod(inputs.pixels.shape[2], rows)
    if rest or rows < 2:
        raise NotApplicable("its patches do not divide the image")
    grid = torch.arange(rows * columns).view(rows, columns).roll(1, dims=0).flatten() + prefix
    places = torch.cat([torch.arange(prefix), grid]).expand(len(plain.tokens), -1)
    return plain, subject.backbone(VisionInput(inputs.pixels.roll(height, dims=2))), places


def _reversed_words(inputs: TextInput, special_ids: Sequence[int]) -> Tensor:
    """Return where each token comes from when the words of each text are reversed, int64 [T, L]."""
    places = torch.arange(inputs.token_ids.shape[1]).repeat(len(inputs.token_ids), 1)
    words = inputs.mask & ~torch.isin(inputs.token_ids, torch.tensor(special_ids))
    for row, chosen in zip(places, words, strict=True):
        row[chosen] = row[chosen].flip(0)
    return places


@torch.no_grad()
def _processor(subject: Subject) -> None:
    """What its processor makes of pictures and texts of any size fits its forward."""
    backbone, processor = subject.backbone, subject.backbone.processor
    try:
        json.dumps(processor.describe())
    except TypeError as error:
        raise failure("processor", f"describe() gives what JSON cannot hold ({error})", "plain data") from None
    if subject.modality == "vision":
        generator = torch.Generator().manual_seed(0)
        pictures = [_picture(size, generator) for size in SIZES]
        inputs = processor(pictures)
        check_equal("processor", "pixels", (inputs.pixels.dtype, inputs.pixels.shape[:2]), (torch.uint8, (3, 3)))
        count = len(pictures)
    else:
        inputs = processor(["a", LONG, "two dogs!"])
        facts, ids = processor.facts, inputs.token_ids
        check_equal("processor", "longest text that is cut", ids.shape[1] <= facts.max_tokens, True)
        check_equal("processor", "ids inside of the vocabulary", bool((ids < facts.vocabulary).all()), True)
        check_equal("processor", "texts with a real token", bool(inputs.mask.any(1).all()), True)
        padding = ids[~inputs.mask].unique().tolist()
        check_equal("processor", "ids of padding", padding, [facts.pad_id] if padding else [])
        count = 3
    features = backbone(inputs)
    check_equal("processor", "inputs that are encoded", len(features.tokens), count)


def _picture(size: tuple[int, int], generator: torch.Generator) -> Image.Image:
    columns, rows = size
    pixels = torch.randint(0, 256, (rows, columns, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


RULES: dict[str, Callable[[Subject], None]] = {
    "order": _order,
    "processor": _processor,
}
