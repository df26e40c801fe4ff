"""What is known of a vision backbone from `transformers` before it is built. Imports no torch and no transformers."""

from __future__ import annotations

from typing import Any

from renaissance.api import UNKNOWN, Capabilities
from renaissance.builtin.transformers_options import (
    SwinOptions,
    VisionOptions,
    check,
    check_sees_images,
    has_weights,
    model_type_of,
    nearest_multiple,
)
from renaissance.builtin.transformers_vision_types import SWIN_REFUSED, VISION_TYPES, VisionType
from renaissance.errors import SpecError


def describe_vision(options: VisionOptions) -> Capabilities:
    """Return what is known of a vision backbone without building it.

    Raises:
        SpecError: the options do not fit each other.
        UnknownComponentError: it is a type of text encoder.
    """
    model_type = model_type_of(options)
    check_sees_images(model_type)
    check(options)
    if (kind := VISION_TYPES.get(model_type)) is not None:
        return _describe_type(kind, options, model_type)
    return Capabilities(
        width=options.width or UNKNOWN,
        depth=options.layers or UNKNOWN,
        image_size=options.image_size or UNKNOWN,
        patch_size=options.patch_size or UNKNOWN,
        grid=UNKNOWN,
        size_step=options.patch_size or UNKNOWN,
    )


def _describe_type(kind: VisionType, options: VisionOptions, model_type: str) -> Capabilities:
    known, changes = options.published, _config_changes(options)
    name = known.name if known else f"transformers:{model_type}"
    try:
        image_size, step = kind.image_size(changes), kind.size_step(changes)
    except (TypeError, ValueError, IndexError) as error:
        raise SpecError(
            f"{name}: the overrides do not fit ({error}). Give each the form of the config's own."
        ) from None
    if step is not None:
        _check_step(name, image_size, step)
    layered = not kind.refused
    return Capabilities(
        width=options.width or kind.size("hidden_size", changes) or UNKNOWN,
        depth=options.layers or kind.size("num_hidden_layers", changes) or UNKNOWN,
        layered=layered,
        class_token=UNKNOWN if kind.class_token is None else kind.class_token,
        image_size=image_size,
        patch_size=step if layered else UNKNOWN,
        grid=(image_size // step, image_size // step) if layered and step else UNKNOWN,
        pretrained=has_weights(options),
        trained_on=known.trained_on if known else (),
        positions=kind.positions or UNKNOWN,
        base=layered,
        refused=kind.refused,
        size_step=step,
    )


def _config_changes(options: VisionOptions) -> dict[str, Any]:
    """Return what the options change of the config, by the config's own names, as far as the table of types reads."""
    sizes = {"image_size": options.image_size, "patch_size": options.patch_size}
    return {**getattr(options, "overrides", {}), **{name: size for name, size in sizes.items() if size}}


def _check_step(name: str, image_size: int, step: int) -> None:
    if image_size < step or image_size % step:
        raise SpecError(
            f"{name}: image_size={image_size} is no multiple of {step}, the side of a token in pixels. "
            f"Use image_size={nearest_multiple(image_size, step)}."
        )


def describe_swin(options: SwinOptions) -> Capabilities:
    """Return what is known of a Swin transformer without building it.

    Raises:
        SpecError: the options do not fit each other.
    """
    check(options)
    step = options.patch_size * 2 ** (len(options.depths) - 1)
    side = options.image_size // step
    return Capabilities(
        width=options.width,
        depth=sum(options.depths),
        layered=False,
        class_token=False,
        image_size=options.image_size,
        patch_size=step,  # of a token: blocks merge those of the first stage
        grid=(side, side),
        pretrained=options.published is not None,
        trained_on=options.published.trained_on if options.published else UNKNOWN,
        positions="relative",
        base=False,
        refused=SWIN_REFUSED,
        size_step=step,
    )
