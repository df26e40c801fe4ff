"""Building vision encoders of Hugging Face `transformers` as backbones."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from renaissance.api import Backbone, SavedBackbone, Weights
from renaissance.builtin.towers import filled
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
from renaissance.builtin.transformers_sizes import (
    config_from,
    config_values,
    vision_sizes,
    with_overrides,
    with_sizes,
)
from renaissance.builtin.transformers_vision_families import FAMILIES
from renaissance.builtin.transformers_vision_towers import (
    LayeredVision,
    check_grid,
    empty_model,
    model_arguments,
    without_mask_token,
)
from renaissance.builtin.transformers_vision_types import VISION_TYPES
from renaissance.builtin.transformers_vision_whole import WholeVision, measured
from renaissance.builtin.vision_base import shapes
from renaissance.errors import SpecError, UnknownComponentError
from renaissance.toolkit.building import drop_parts
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
    pooler = saved.config.get("pooler", False)
    model, processor = empty_model(config, pooler), ImageProcessor.load(saved.folder)
    if (facts := saved.config.get("facts")) is not None:
        drop_parts(model, facts["unused"])
        return WholeVision(model, processor, saved.config)
    tower = _layered(model, config, processor, saved.config["revision"], pooler)
    tower.config = {**tower.config, **{key: saved.config[key] for key in ("resized",) if key in saved.config}}
    if saved.config.get("embeddings_only", False):
        tower.keep_embeddings()
    return tower


def _random(options: VisionOptions | SwinOptions, source: Source) -> Backbone:
    source = source if source.published else pinned(source)
    config = with_overrides(_encoder_config(source, starting_config(source), _pooler(options)), _overrides(options))
    config = with_sizes(config, _given(options))
    size = _given(options).get("image_size", vision_sizes(config)["image_size"])
    processor = _processor(source, size)
    check_grid(source.name, config, size)
    try:
        model = initialised(model_class(source.name, config), config, **model_arguments(config, _pooler(options)))
    except (ValueError, TypeError, RuntimeError, IndexError, ArithmeticError, AttributeError) as error:
        # the library checks little: lists of different lengths and widths that do not divide fail in its own code
        raise SpecError(f"{source.name}: these sizes do not fit each other ({error}). Change the overrides.") from error
    return _tower(source.name, model, config, processor, None, _pooler(options))


def _pretrained(options: VisionOptions | SwinOptions, source: Source) -> Backbone:
    refuse_without_weights(source, options)
    if source.bundled:
        return filled(_random(options, source), source.name)
    if _overrides(options):
        raise SpecError(
            f"{source.name}: the pretrained weights have the sizes that they have. Leave overrides out, or say 'random "
            "vision'."
        )
    source = pinned(source)
    config = _encoder_config(source, load_config(source), _pooler(options))
    given = _given(options)
    dropout = {"dropout": given.pop("dropout")} if "dropout" in given else {}
    image_size = given.pop("image_size", None)
    refuse_changes(source, given, vision_sizes(config), fewer=("layers",))
    config = with_sizes(config, {**dropout, **{name: given[name] for name in ("layers",) if name in given}})
    processor = load_preprocessing(source)
    if image_size is not None:
        processor = processor.resized((image_size, image_size))
    arguments = model_arguments(config, _pooler(options))
    model = load_model(source, model_class(source.name, config), config, may_miss=("pooler.layernorm",), **arguments)
    size = _square(source, processor)
    check_grid(source.name, config, size)
    before = shapes(model)
    if config.model_type in FAMILIES and size != vision_sizes(config)["image_size"]:
        config = with_sizes(config, {"image_size": size})
        model = resized_positions(without_mask_token(model), empty_model(config, _pooler(options)))
    resized = {id(parameter) for name, parameter in model.named_parameters() if parameter.shape != before[name]}
    tower = _tower(source.name, model, config, processor, source.revision, _pooler(options))
    names = [name for name, parameter in tower.named_parameters() if id(parameter) in resized]
    if names:
        tower.config = {**tower.config, "resized": names}
    return tower


def _given(options: VisionOptions | SwinOptions) -> dict[str, Any]:
    return options.model_dump(exclude={"model", "revision", "overrides", "pooler"}, exclude_none=True)


def _pooler(options: VisionOptions | SwinOptions) -> bool:
    return isinstance(options, VisionOptions) and options.pooler


def _overrides(options: VisionOptions | SwinOptions) -> dict[str, Any]:
    return dict(getattr(options, "overrides", {}))


def _encoder_config(source: Source, config: PreTrainedConfig, pooler: bool) -> PreTrainedConfig:
    """Return the config of the vision encoder in this model, without parts whose parameters would stay unused.

    Raises:
        UnknownComponentError: it is no vision encoder that is supported.
        SpecError: it has no pooler, and one is asked for.
    """
    config = getattr(config, "vision_config", config)
    if config.model_type not in VISION_TYPES:
        raise UnknownComponentError(
            f"{source.name}: the model type {config.model_type!r} is no vision encoder that is supported here. "
            f"Supported: {', '.join(sorted(VISION_TYPES))}. More are in 'timm:' and 'open-clip:'."
        )
    if pooler and (config.model_type not in FAMILIES or FAMILIES[config.model_type](config).pooler is None):
        raise SpecError(
            f"{source.name}: models of the type {config.model_type!r} have no pooler to keep. Leave pooler out."
        )
    for unused in ("use_mask_token", "mask_ratio", *(() if pooler else ("vision_use_head",))):
        if hasattr(config, unused):
            setattr(config, unused, 0.0 if unused == "mask_ratio" else False)
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
    name: str,
    model: nn.Module,
    config: PreTrainedConfig,
    processor: ImageProcessor,
    revision: str | None,
    pooler: bool,
) -> LayeredVision | WholeVision:
    model = without_mask_token(model)
    if config.model_type in FAMILIES:
        return _layered(model, config, processor, revision, pooler)
    facts = measured(model, processor, name)
    return WholeVision(model, processor, {"transformers": config_values(config), "revision": revision, "facts": facts})


def _layered(
    model: nn.Module, config: PreTrainedConfig, processor: ImageProcessor, revision: str | None, pooler: bool
) -> LayeredVision:
    saved = {"transformers": config_values(config), "revision": revision, **({"pooler": True} if pooler else {})}
    return LayeredVision(model, FAMILIES[config.model_type](config), processor, saved)
