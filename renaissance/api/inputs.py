"""What flows through a model: images, texts, features, pairs of them, and items of prepared data.

Letters in shapes: V distinct images of a batch, T distinct texts, P pairs of an image and a text, B any of the three,
N tokens of a vision tower, L tokens of a text, D width, C most captions that one image has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class VisionInput:
    """Distinct images. pixels [V, 3, H, W]: uint8 as decoded, or float as the backbone's `normalise` leaves them.

    mask bool [V, H, W] marks real pixels of variable-size images; masked_patches bool [V, N].
    """

    pixels: Tensor
    mask: Tensor | None = None
    masked_patches: Tensor | None = None


@dataclass(frozen=True, slots=True)
class TextInput:
    """Distinct texts. token_ids int64 [T, L]; mask bool [T, L], True where a token is real.

    segment_ids int64 [T, L]; embeddings [T, L, E] in place of the ids' word embeddings. words int64 [T, L]: the number
    of each token's word in its text, -1 for special tokens; there where ids do not tell (`WordPieces.by_text`).
    """

    token_ids: Tensor
    mask: Tensor
    segment_ids: Tensor | None = None
    embeddings: Tensor | None = None
    words: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Features:
    """Encoded inputs: tokens [B, N, D], mask bool [B, N] (True: real), pooled [B, D], and the layers asked for.

    embedded [B, N, D]: the tokens before the first block, where a fusion head reads them.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor | None = None
    layers: tuple[Tensor, ...] = ()
    embedded: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Prefix:
    """Inputs that went through the first `depth` blocks of a tower: tokens [B, N, D], mask bool [B, N] (True: real)."""

    tokens: Tensor
    mask: Tensor
    depth: int


@dataclass(frozen=True, slots=True)
class Joint:
    """Fused pairs: the two fused streams and pooled [P, D]; only what was asked for is there."""

    vision: Features | None = None
    text: Features | None = None
    pooled: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Distinct inputs and pairs of them.

    pairs int64 [P, 2]: (image, text) that belong together; slots int64 [P]: which image of its item (0, 1 ..);
    items int64 [P]: which item; seeds int64 [P]: a function of (seed, epoch, sample id) alone.
    caption_keys int64 [V, C]: keys of *all* captions of each image, 0 where it has fewer; text_keys int64 [T].
    Two texts have the same key exactly if they are the same caption. image_keys int64 [V]: two rows have the same key
    exactly if they are of the same image; view_keys int64 [V]: if they have the same pixels of it (views of an image
    that are augmented differ). Keys tell what is the same on other processes too. targets: what labelled data adds.
    stored_vision, stored_text: what frozen towers, or their frozen first blocks, gave; read from a store in place of
    being computed.
    skipped: what could not be used and was left out, one line each (recipe: `on_bad_sample: skip`). bytes_read: the
    bytes of the images that were read for it.
    """

    images: VisionInput | None
    texts: TextInput
    pairs: Tensor
    slots: Tensor
    items: Tensor
    seeds: Tensor
    caption_keys: Tensor
    text_keys: Tensor
    image_keys: Tensor
    view_keys: Tensor
    ids: tuple[str, ...] = ()
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    stored_vision: Features | Prefix | None = None
    stored_text: Features | Prefix | None = None
    skipped: tuple[str, ...] = ()
    bytes_read: int = 0


# A box in pixels of its image: left, top, width, height.
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to decide or to learn from: images and texts that belong together, and what is right about them.

    images: where their bytes are (`name`, `read()`). texts: captions of the image; or the question, sentence or
    hypothesis; or the candidates. label: the right class. answers: those of all annotators (VQA). boxes: candidate
    regions of the first image. target: the number of the right candidate. fields: what else the corpus says.
    """

    id: str
    images: tuple[Any, ...]
    texts: tuple[str, ...]
    row: str = ""
    label: str | None = None
    answers: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    target: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
