"""Building vision encoders of Hugging Face `transformers` as backbones."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from renaissance.api import Backbone, SavedBackbone, Weights
from renaissance.builtin.transformers_loading import (
    Source,
    initialised,
    load_config,
    load_model,
    load_preprocessing,
    model_class,
    pinned,
    starting_config,
)
from renaissance.builtin.transformers_options import SwinOptions, VisionOptions, check
from renaissance.builtin.transformers_positions import resized_positions
from renaissance.builtin.transformers_refusals import refuse_changes, refuse_without_weights
from renaissance.builtin.transformers_sizes import config_from, config_values, vision_sizes, with_sizes
from renaissance.builtin.transformers_vision_families import FAMILIES
from renaissance.builtin.transformers_vision_towers import (
    LayeredVision,
    WholeVision,
    check_grid,
    empty_model,
    model_arguments,
    without_mask_token,
)
from renaissance.errors import SpecError, UnknownComponentError
from renaissance.toolkit.images import ImageProcessor

# with random weights there is nothing that the colours must match
FREE_MEAN = FREE_STD = (0.5, 0.5, 0.5)


def build(options: VisionOptions | SwinOptions, *, weights: Weights, saved: SavedBackbone | None) -> Backbone:
    """Return a vision backbone of `transformers`.

    Raises:
        SpecError: the options do not fit each other, or not the pretrained weights.
        UnknownComponentError: the model is no vision encoder that is supported.
        HubError: something of it cannot be read from the Hub.
    """
    if weights == "none":
        assert saved is not None, "weights='none' builds from what was saved"
        return _restored(saved)
    check(options)
    source = Source.of(options, "vision")
    return _pretrained(options, source) if weights == "pretrained" else _random(options, source)


def _restored(saved: SavedBackbone) -> Backbone:
    config = config_from(saved.config["transformers"])
    tower = _tower(empty_model(config), config, ImageProcessor.load(saved.folder), saved.config["revision"])
    if saved.config.get("embeddings_only", False):
        assert isinstance(tower, LayeredVision), "only a layered backbone lets its blocks go"
        tower.keep_embeddings()
    return tower


def _random(options: VisionOptions | SwinOptions, source: Source) -> Backbone:
    source = source if source.published else pinned(source)
    config = _encoder_config(source, starting_config(source))
    config = with_sizes(config, _given(options))
    processor = _processor(source, vision_sizes(config)["image_size"])
    check_grid(source.name, config)
    model = initialised(model_class(source.name, config), config, **model_arguments(config))
    return _tower(model, config, processor, None)


def _pretrained(options: VisionOptions | SwinOptions, source: Source) -> Backbone:
    refuse_without_weights(source)
    source = pinned(source)
    config = _encoder_config(source, load_config(source))
    given = _given(options)
    dropout = {"dropout": given.pop("dropout")} if "dropout" in given else {}
    image_size = given.pop("image_size", None)
    refuse_changes(source, given, vision_sizes(config), fewer=("layers",))
    config = with_sizes(config, {**dropout, **{name: given[name] for name in ("layers",) if name in given}})
    processor = load_preprocessing(source)
    if image_size is not None:
        processor = processor.resized((image_size, image_size))
    model = load_model(
        source, model_class(source.name, config), config, may_miss=("pooler.layernorm",), **model_arguments(config)
    )
    wanted = with_sizes(config, {"image_size": _square(source, processor)})
    check_grid(source.name, wanted)
    if vision_sizes(wanted)["image_size"] != vision_sizes(config)["image_size"]:
        model = resized_positions(without_mask_token(model), empty_model(wanted))
    return _tower(model, wanted, processor, source.revision)


def _given(options: VisionOptions | SwinOptions) -> dict[str, Any]:
    return options.model_dump(exclude={"model", "revision"}, exclude_none=True)


def _encoder_config(source: Source, config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config of the vision encoder in this model, without parts whose parameters would stay unused.

    Raises:
        UnknownComponentError: it is no vision encoder that is supported.
    """
    config = getattr(config, "vision_config", config)
    if config.model_type not in FAMILIES:
        raise UnknownComponentError(
            f"{source.name}: the model type {config.model_type!r} is no vision encoder that is supported here. "
            f"Supported: {', '.join(sorted(FAMILIES))}. More are in 'timm:' and 'open-clip:'."
        )
    for unused in ("use_mask_token", "vision_use_head"):
        if hasattr(config, unused):
            setattr(config, unused, False)
    return config


def _processor(source: Source, image_size: int) -> ImageProcessor:
    """Return the preprocessing for random weights: the published one, or the model's own."""
    if source.published is not None:
        return ImageProcessor((image_size, image_size), **source.published.preprocessing)
    if source.bare_type:
        return ImageProcessor((image_size, image_size), mean=FREE_MEAN, std=FREE_STD)
    return load_preprocessing(source).resized((image_size, image_size))


def _square(source: Source, processor: ImageProcessor) -> int:
    height, width = processor.image_size
    if height != width:
        raise SpecError(
            f"{source.name} takes images of {height} x {width} pixels; only squares are supported. Give an image_size."
        )
    return height


def _tower(
    model: nn.Module, config: PreTrainedConfig, processor: ImageProcessor, revision: str | None
) -> LayeredVision | WholeVision:
    model = without_mask_token(model)
    saved = {"transformers": config_values(config), "revision": revision}
    family = FAMILIES[config.model_type](config)
    if family.blocks is None:
        return WholeVision(model, family, processor, saved)
    return LayeredVision(model, family, family.blocks, processor, saved)
