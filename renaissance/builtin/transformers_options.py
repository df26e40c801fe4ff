"""Options of the backbones from Hugging Face `transformers`, and what is published of those with short names.

Imports no torch and no transformers: all that can be known of a short name without the network stands here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field, JsonValue, create_model

from renaissance.api import UNKNOWN, Capabilities, Options, Unknown
from renaissance.builtin.transformers_text_positions import (
    AS_A_WHOLE,
    HALVED,
    NO_BASES,
    TEXT_POSITIONS,
    TEXT_TOWERS,
    WHOLE_TYPES,
)
from renaissance.builtin.transformers_vision_types import VISION_TYPES
from renaissance.errors import SpecError, UnknownComponentError

SHIPPED_TOKENIZER = "renaissance"
SHIPPED_VOCABULARY = 4096

Pooling = Literal["first", "last", "mean"]

LAYERS = "How many blocks to build; with pretrained weights the first ones are kept."
WIDTH = "Channels of a token."
HEADS = "Attention heads of a block."
MLP_WIDTH = "Hidden channels of a block's MLP."
DROPOUT = "Probability of dropout in training, on hidden states and attention weights."
IMAGE_SIZE = "Height and width of the input in pixels; position tables of pretrained weights are resized to it."
PATCH_SIZE = "Height and width of a patch in pixels."
POOLER = "Keep the model's own pooler: what `dual` and `itc` read then is its vector, and not a token or a mean."
MAX_TOKENS = "Longest text in tokens, special ones included; longer ones are truncated."
POOLING = "What stands for the whole text: the first token, the last real one, or the mean of the real tokens."
TOKENIZER = (
    "null: the model's own; 'renaissance': the WordPiece that ships with renaissance; or a folder that holds a "
    "tokenizer.json. Another one than the model's own needs random weights."
)


@dataclass(frozen=True, slots=True)
class Published:
    """What is published of a model.

    model: its name on the Hub, None where it is not there. config: what differs from the library's defaults for
    `model_type`. preprocessing: arguments of the image processor. trained_on: the data its weights have seen.
    bundled: its weights ship with renaissance, those of its default sizes alone.
    """

    name: str
    model: str | None
    model_type: str
    depth: int
    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    trained_on: tuple[str, ...] = ()
    vocabulary: int | None = None
    bundled: bool = False


class TextOptions(Options):
    """Options of a text backbone; a size that is null is the model's own."""

    published: ClassVar[Published | None] = None

    pooling: Pooling | None = Field(default=None, description=f"{POOLING} null: as the model's family does.")
    tokenizer: str | None = Field(default=None, description=TOKENIZER)
    layers: int | None = Field(default=None, ge=1, description=LAYERS)
    width: int | None = Field(default=None, ge=1, description=WIDTH)
    heads: int | None = Field(default=None, ge=1, description=HEADS)
    mlp_width: int | None = Field(default=None, ge=1, description=MLP_WIDTH)
    max_tokens: int | None = Field(default=None, ge=3, description=MAX_TOKENS)
    dropout: float | None = Field(default=None, ge=0, lt=1, description=DROPOUT)
    pooler: bool = Field(default=False, description=POOLER)


class VisionOptions(Options):
    """Options of a vision backbone; a size that is null is the model's own."""

    published: ClassVar[Published | None] = None

    image_size: int | None = Field(default=None, ge=1, description=IMAGE_SIZE)
    patch_size: int | None = Field(default=None, ge=1, description=PATCH_SIZE)
    layers: int | None = Field(default=None, ge=1, description=LAYERS)
    width: int | None = Field(default=None, ge=1, description=WIDTH)
    heads: int | None = Field(default=None, ge=1, description=HEADS)
    mlp_width: int | None = Field(default=None, ge=1, description=MLP_WIDTH)
    dropout: float | None = Field(default=None, ge=0, lt=1, description=DROPOUT)
    pooler: bool = Field(default=False, description=POOLER)


class SwinOptions(Options):
    """Options of a Swin transformer; its width doubles from stage to stage."""

    published: ClassVar[Published | None] = None

    image_size: int = Field(default=224, ge=1, description=IMAGE_SIZE)
    patch_size: int = Field(default=4, ge=1, description=PATCH_SIZE)
    width: int = Field(default=768, ge=1, description="Channels of a token after the last stage.")
    depths: list[int] = Field(min_length=1, description="Blocks of each stage.")
    heads: list[int] = Field(default=[3, 6, 12, 24], min_length=1, description="Attention heads of each stage.")
    window: int = Field(default=7, ge=1, description="Side of an attention window in tokens.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description=DROPOUT)


MODEL = "A model on the Hub ('org/name') or a folder; with random weights also a bare model type, such as {}."
OVERRIDES = "Fields of the model's own config (depths, hidden_sizes, embed_dim ..), with random weights only."
REVISION = "Branch, tag or commit on the Hub; null: its main branch."


class LibraryTextOptions(TextOptions):
    """Options of any text encoder of the library."""

    model: str = Field(min_length=1, description=MODEL.format("'bert'"))
    revision: str | None = Field(default=None, description=REVISION)
    overrides: dict[str, JsonValue] = Field(default_factory=dict, description=OVERRIDES)


class LibraryVisionOptions(VisionOptions):
    """Options of any supported vision encoder of the library."""

    model: str = Field(min_length=1, description=MODEL.format("'vit'"))
    revision: str | None = Field(default=None, description=REVISION)
    overrides: dict[str, JsonValue] = Field(default_factory=dict, description=OVERRIDES)


_Options = TypeVar("_Options", bound=Options)


def with_defaults(base: type[_Options], published: Published, defaults: Mapping[str, Any]) -> type[_Options]:
    """Return the options class of a short name: the fields of `base` with the published sizes as defaults."""
    fields: dict[str, Any] = {}
    for name, default in defaults.items():
        info = copy(base.model_fields[name])
        info.default = default
        fields[name] = (info.annotation if default is None or isinstance(default, list) else type(default), info)
    title = "".join(part.capitalize() for part in published.name.split("-"))
    made = create_model(f"{title}Options", __base__=base, __doc__=f"Options of {published.name}.", **fields)
    made.published = published  # type: ignore[attr-defined]  # a class variable of each base that is passed here
    return made


def check(options: Any) -> None:
    """Check the sizes that are given against each other.

    Raises:
        SpecError: they do not fit; the message says the nearest value that does.
    """
    if isinstance(options, SwinOptions):
        _check_swin(options)
        return
    name = options.published.name if options.published else options.model
    if options.published and options.published.model and options.layers > options.published.depth:
        depth = options.published.depth
        raise SpecError(f"{name} has {depth} blocks, not {options.layers}. Use layers={depth} or fewer.")
    if options.width and options.heads and options.width % options.heads:
        raise SpecError(
            f"{name}: heads={options.heads} does not divide width={options.width}. "
            f"Use width={nearest_multiple(options.width, options.heads)} or heads={_nearest_divisor(options)}."
        )
    if isinstance(options, TextOptions) and options.pooler and options.pooling not in (None, "first"):
        raise SpecError(
            f"{name}: the pooler reads the first token, and pooling is {options.pooling!r}. Say pooling='first', or "
            "leave pooler out."
        )
    if isinstance(options, VisionOptions) and options.image_size and options.patch_size:
        _check_patches(name, options.image_size, options.patch_size)


def _check_patches(name: str, image_size: int, patch_size: int) -> None:
    if image_size % patch_size:
        fitting = f"image_size={nearest_multiple(image_size, patch_size)}"
        if patch_size > image_size:  # an image of one patch is no choice that anyone looks for
            largest = max(side for side in range(1, image_size) if image_size % side == 0)
            fitting = f"image_size={image_size}, patch_size={largest}"
        raise SpecError(f"{name}: image_size={image_size} is no multiple of patch_size={patch_size}. Use {fitting}.")


def _check_swin(options: SwinOptions) -> None:
    name = options.published.name if options.published else "swin"
    stages = len(options.depths)
    if len(options.heads) != stages:
        raise SpecError(
            f"{name}: depths has {stages} stages and heads {len(options.heads)}. Give one number for each stage."
        )
    for value, field_name in [(options.depths, "depths"), (options.heads, "heads")]:
        if min(value) < 1:
            raise SpecError(f"{name}: {field_name}={value} has a number below 1. Each stage needs at least one.")
    step = math.lcm(
        *(heads * 2 ** (stages - 1 - stage) for stage, heads in enumerate(options.heads)), 2 ** (stages - 1)
    )
    if options.width % step:
        raise SpecError(
            f"{name}: width={options.width} cannot be divided over heads={options.heads} in {stages} stages. "
            f"Use width={nearest_multiple(options.width, step)}."
        )
    _check_patches(name, options.image_size, options.patch_size * 2 ** (stages - 1))


def nearest_multiple(value: int, of: int) -> int:
    """Return the multiple nearest to the value, at least one."""
    return max(of, round(value / of) * of)


def _nearest_divisor(options: TextOptions | VisionOptions) -> int:
    width, heads = options.width or 1, options.heads or 1
    return min((n for n in range(1, width + 1) if width % n == 0), key=lambda n: abs(n - heads))


def has_weights(options: TextOptions | VisionOptions) -> bool:
    """Return whether a short name has pretrained weights of these sizes.

    Bundled weights are those of the default sizes; fewer layers are the first ones, and dropout and pooling are free.
    """
    known = options.published
    if known is None or not known.bundled:
        return known is not None and known.model is not None
    changed = options.model_dump(exclude_defaults=True, exclude={"layers", "dropout", "pooling"})
    return not changed and (options.layers or 0) <= known.depth


def describe_text(options: TextOptions) -> Capabilities:
    """Return what is known of a text backbone without building it.

    Raises:
        SpecError: the options do not fit each other.
        UnknownComponentError: it is a type of vision encoder.
    """
    known = options.published
    model_type = model_type_of(options)
    _check_reads_words(model_type)
    check(options)
    model_type = TEXT_TOWERS.get(model_type, model_type)
    layered = True if model_type in TEXT_POSITIONS else False if model_type in WHOLE_TYPES else UNKNOWN
    vocabulary = SHIPPED_VOCABULARY if options.tokenizer == SHIPPED_TOKENIZER else UNKNOWN
    if known and options.tokenizer is None:
        vocabulary = known.vocabulary or UNKNOWN
    return Capabilities(
        width=options.width or UNKNOWN,
        depth=options.layers or UNKNOWN,
        layered=layered,
        class_token=options.pooling == "first" if options.pooling else UNKNOWN,
        max_tokens=options.max_tokens or UNKNOWN,
        vocabulary=vocabulary,
        pretrained=has_weights(options) if known else UNKNOWN,
        trained_on=known.trained_on if known else UNKNOWN,
        positions=TEXT_POSITIONS.get(model_type, UNKNOWN),
        base=layered if model_type not in NO_BASES else False,
        refused=AS_A_WHOLE if layered is False else NO_BASES.get(model_type, ""),
        text_blocks=UNKNOWN if isinstance(layered, Unknown) else model_type in HALVED,
    )


def _check_reads_words(model_type: str) -> None:
    if model_type in VISION_TYPES and model_type not in TEXT_TOWERS:
        raise UnknownComponentError(
            f"The model type '{model_type}' is a vision encoder, and it is named as one of texts. Use a text encoder "
            "there, such as 'bert-base'; in a two-tower model the vision backbone comes first."
        )


def check_sees_images(model_type: str) -> None:
    """Refuse a model type that is known to encode texts.

    Raises:
        UnknownComponentError: it does.
    """
    if model_type in TEXT_POSITIONS or model_type in WHOLE_TYPES:
        raise UnknownComponentError(
            f"The model type '{model_type}' is a text encoder, and it is named as one of images. Use a vision encoder "
            "there, such as 'vit-base'; in a two-tower model the text backbone comes second."
        )


def model_type_of(options: TextOptions | VisionOptions) -> str:
    """Return the model type that the options name without the Hub, or the name of the model on it."""
    if options.published is not None:
        return options.published.model_type
    model: str = getattr(options, "model", "")
    return "" if Path(model).is_dir() else model
