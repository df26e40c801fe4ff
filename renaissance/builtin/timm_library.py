"""Dealing with the timm library itself: names, creation, weights and preprocessing."""

from __future__ import annotations

import difflib
import warnings
from typing import TYPE_CHECKING, Any

import timm
from timm.data import resolve_model_data_config
from timm.models import get_pretrained_cfg

from renaissance.builtin.timm_blocks import enumeration_of as enumeration_of  # open_clip has timm models inside
from renaissance.errors import HubError, SpecError, UnknownComponentError
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.messages import either, first_line

if TYPE_CHECKING:
    from renaissance.builtin.timm_entries import TimmOptions

RESERVED = {
    "num_classes": "the classifier is always dropped",
    "in_chans": "images are RGB",
    "global_pool": "pooling is part of renaissance",
    "features_only": "use the model as it is",
    "pretrained": "use the clause 'pretrained' or 'random'",
    "img_size": "use image_size",
    "proj_drop_rate": "use drop_rate",
    "drop_rate": "use drop_rate outside of overrides",
    "drop_path_rate": "use drop_path_rate outside of overrides",
}
WEIGHT_FILES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")


def resolve_name(model: str) -> str:
    """Return the full name in timm, with the tag of the weights, of the model that a user named.

    Raises:
        UnknownComponentError: timm has no such model, or the model no such weights.
    """
    architecture, _, tag = model.partition(".")
    if ":" in model or not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"Did you mean {either(near)}?" if near else "timm.list_models() lists all that there are."
        raise UnknownComponentError(f"timm {timm.__version__} has no model called {model!r}. {hint}")
    try:
        settings = get_pretrained_cfg(model)
    except RuntimeError:
        tags = timm.list_pretrained(f"{architecture}.*")
        hint = f"Did you mean {either(tags)}?" if tags else f"Try: 'timm:{architecture}'"
        raise UnknownComponentError(f"timm's {architecture!r} has no weights tagged {tag!r}. {hint}") from None
    return f"{architecture}.{settings.tag}" if settings is not None and settings.tag else architecture


def create_random(name: str, options: TimmOptions, image_size: int | tuple[int, int] | None) -> Any:
    """Return the timm model with random weights, without classifier. What timm raises comes through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's advice to its own developers
        return timm.create_model(name, pretrained=False, **_arguments(name, options, image_size))


def create_pretrained(name: str, options: TimmOptions, image_size: int | None) -> Any:
    """Return the timm model with its pretrained weights, without classifier.

    Raises:
        SpecError: it has no such weights, or does not accept the options.
        HubError: the weights cannot be fetched.
    """
    if options.overrides:
        raise SpecError(f"timm:{name}: pretrained weights fit no overrides. Drop these, or add 'random vision'.")
    settings = get_pretrained_cfg(name)
    if settings is None or not settings.has_weights:
        raise SpecError(f"timm:{name} has no pretrained weights. Add the clause 'random vision'.")
    overlay = None
    if options.revision is not None:
        if not settings.hf_hub_id:
            raise SpecError(
                f"timm:{name}: its weights are not on the Hub, so there is no revision {options.revision!r}."
            )
        overlay = {"hf_hub_id": f"{settings.hf_hub_id}@{options.revision}"}
    arguments = _arguments(name, options, image_size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
    except (TypeError, AssertionError) as error:
        raise SpecError(refusal(name, error)) from error
    except (OSError, RuntimeError, ValueError) as error:  # each layer of the download raises a class of its own
        raise HubError(
            f"timm:{name}: its weights could not be fetched ({first_line(error)}). Connect to the Hub once to fill the "
            "cache, or start from random weights with the clause 'random vision'."
        ) from error


def refusal(name: str, error: Exception) -> str:
    """Return the message for options that timm does not accept."""
    return f"timm:{name} cannot be built with these options ({first_line(error)}). Change its image_size or overrides."


def image_processor(model: Any, image_size: int | None) -> ImageProcessor:
    """Return the preprocessing that the model's weights were evaluated with, at another size if one is given.

    Raises:
        SpecError: the weights need a preprocessing that renaissance does not have.
    """
    settings = resolve_model_data_config(model)
    modes = {"center": "shortest", "squash": "squash"}
    if settings["crop_mode"] not in modes:
        raise SpecError(f"timm crops images for this model by {settings['crop_mode']!r}, which renaissance cannot do.")
    height, width = settings["input_size"][-2:]
    return ImageProcessor(
        (image_size or height, image_size or width),
        crop=settings["crop_pct"],
        resize=modes[settings["crop_mode"]],  # type: ignore[arg-type]  # the table's values are the literals
        interpolation=settings["interpolation"],
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
    )


def pretrained_commit(model: Any, revision: str | None) -> str | None:
    """Return the commit of the Hub from which the weights in the local cache came; None if they came from elsewhere."""
    from huggingface_hub import try_to_load_from_cache

    repository = model.pretrained_cfg.get("hf_hub_id")
    if not repository:
        return None
    for file in WEIGHT_FILES:
        path = try_to_load_from_cache(repository.partition("@")[0], file, revision=revision)
        if isinstance(path, str):
            return path.replace("\\", "/").split("/snapshots/")[1].split("/")[0]
    return None


def _arguments(name: str, options: TimmOptions, image_size: int | tuple[int, int] | None) -> dict[str, Any]:
    """Return the arguments of timm.create_model."""
    for key in options.overrides:
        if key in RESERVED:
            raise SpecError(f"timm:{name}: overrides cannot set {key!r}: {RESERVED[key]}.")
    arguments: dict[str, Any] = {**options.overrides, "num_classes": 0}
    if options.drop_rate is not None:
        arguments["proj_drop_rate"] = options.drop_rate  # timm's `drop_rate` is that of the classifier
    if options.drop_path_rate is not None:
        arguments["drop_path_rate"] = options.drop_path_rate
    settings = get_pretrained_cfg(name)
    if image_size is not None and settings is not None and settings.fixed_input_size:
        arguments["img_size"] = image_size
    return arguments
