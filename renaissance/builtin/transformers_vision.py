"""Vision encoders of Hugging Face `transformers` as backbones.

Letters in shapes: V images, H and W height and width in pixels, N tokens (prefix tokens first, then the grid row by
row), D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from renaissance.api import Backbone, Features, SavedBackbone, VisionInput, Weights
from renaissance.builtin.transformers_loading import (
    Source,
    empty,
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
from renaissance.builtin.transformers_refusals import refuse_changes, refuse_layers, refuse_without_weights
from renaissance.builtin.transformers_sizes import config_from, config_values, vision_sizes, with_sizes
from renaissance.builtin.transformers_vision_families import FAMILIES, Family
from renaissance.errors import SpecError, UnknownComponentError
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.layered import LayerState, fold, modules_at, record, run_block, take_blocks

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
    return _tower(_empty(config), config, ImageProcessor.load(saved.folder), saved.config["revision"])


def _random(options: VisionOptions | SwinOptions, source: Source) -> Backbone:
    source = source if source.published else pinned(source)
    config = _encoder_config(source, starting_config(source))
    config = with_sizes(config, _given(options))
    processor = _processor(source, vision_sizes(config)["image_size"])
    check_grid(source, config)
    model = initialised(model_class(source.name, config), config, **_arguments(config))
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
        source, model_class(source.name, config), config, may_miss=("pooler.layernorm",), **_arguments(config)
    )
    wanted = with_sizes(config, {"image_size": _square(source, processor)})
    check_grid(source, wanted)
    if vision_sizes(wanted)["image_size"] != vision_sizes(config)["image_size"]:
        model = resized_positions(_without_mask_token(model), _empty(wanted))
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


def _empty(config: PreTrainedConfig) -> nn.Module:
    return _without_mask_token(empty(model_class(config.model_type, config), config, **_arguments(config)))


def _without_mask_token(model: Any) -> nn.Module:
    """Drop the token for masked patches, which DINOv2 with registers has whatever its config says."""
    if getattr(model.embeddings, "mask_token", None) is not None:
        model.embeddings.mask_token = None
    result: nn.Module = model
    return result


def _arguments(config: PreTrainedConfig) -> dict[str, Any]:
    return {"add_pooling_layer": config.model_type == "beit" and config.use_mean_pooling}


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


def check_grid(source: Source, config: PreTrainedConfig) -> None:
    """Check that whole patches fill the image.

    Raises:
        SpecError: they do not.
    """
    image_size, patch = vision_sizes(config)["image_size"], token_side(config)
    if image_size % patch:
        raise SpecError(
            f"{source.name}: image_size={image_size} is no multiple of {patch}, the side of a token in pixels. "
            f"Use image_size={max(patch, round(image_size / patch) * patch)}."
        )


def token_side(config: PreTrainedConfig) -> int:
    """Return the side in pixels of the square that a token of the last block stands for."""
    sizes = vision_sizes(config)
    side: int = sizes["patch_size"]
    return side * 2 ** (len(sizes["depths"]) - 1) if "depths" in sizes else side


def _tower(model: nn.Module, config: PreTrainedConfig, processor: ImageProcessor, revision: str | None) -> Backbone:
    model = _without_mask_token(model)
    saved = {"transformers": config_values(config), "revision": revision}
    family = FAMILIES[config.model_type](config)
    if family.blocks is None:
        return WholeVision(model, family, processor, saved)
    return LayeredVision(model, family, family.blocks, processor, saved)


class LayeredVision(nn.Module):
    """A vision encoder whose blocks run one by one. `config` is what `_restored` builds it from."""

    width: int
    class_token: bool
    prefix_tokens: int
    processor: ImageProcessor
    config: Mapping[str, Any]
    revision: str | None

    def __init__(
        self, model: nn.Module, family: Family, blocks: str, processor: ImageProcessor, config: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.blocks = take_blocks(model, blocks)
        self.model = model
        self.embeddings = modules_at(model, family.embeddings)
        self.final = modules_at(model, family.final)
        self._read = family.read
        _set_facts(self, model, family, processor, config)

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        """Encode pixels [V, 3, H, W]; return tokens [V, N, D].

        Raises:
            SpecError: the pixels have another size than `processor.image_size`, or there is no such layer.
        """
        return fold(self, inputs, layers)

    def embed(self, inputs: VisionInput) -> LayerState:
        """Return the state before the first block."""
        hidden, calls = record(self.model, {"pixel_values": normalised(inputs, self.processor)})
        return LayerState(hidden, all_real(hidden), calls)

    def step(self, index: int, state: LayerState) -> LayerState:
        """Run one block."""
        return run_block(self.blocks[index], index, state)

    def finish(self, state: LayerState) -> Features:
        """Apply the final norm and pool, as the family does."""
        tokens, pooled = self._read(self.final, state.hidden)
        return Features(tokens, state.mask, pooled)

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the preprocessing; return the config."""
        self.processor.save(folder)
        return self.config


class WholeVision(nn.Module):
    """A vision encoder whose stages differ (Swin): it runs as the library runs it, and pools by the mean."""

    width: int
    class_token: bool
    prefix_tokens: int
    processor: ImageProcessor
    config: Mapping[str, Any]
    revision: str | None

    def __init__(self, model: nn.Module, family: Family, processor: ImageProcessor, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.blocks: Sequence[nn.Module] = ()
        self.embeddings: Sequence[nn.Module] = ()
        self.final: Sequence[nn.Module] = ()
        _set_facts(self, model, family, processor, config)

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        """Encode pixels [V, 3, H, W]; return tokens [V, N, D].

        Raises:
            SpecError: the pixels have another size than `processor.image_size`, or layers are asked for.
        """
        refuse_layers(layers)
        tokens = self.model(pixel_values=normalised(inputs, self.processor)).last_hidden_state
        return Features(tokens, all_real(tokens), tokens.mean(1))

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the preprocessing; return the config."""
        self.processor.save(folder)
        return self.config


def _set_facts(
    tower: LayeredVision | WholeVision,
    model: nn.Module,
    family: Family,
    processor: ImageProcessor,
    config: Mapping[str, Any],
) -> None:
    tower.width = cast(PreTrainedConfig, model.config).hidden_size
    tower.class_token = family.class_token
    tower.prefix_tokens = family.prefix
    tower.processor = processor
    tower.config = config
    tower.revision = config["revision"]


def normalised(inputs: VisionInput, processor: ImageProcessor) -> Tensor:
    """Return float pixels [V, 3, H, W].

    Raises:
        SpecError: the pixels have another size than `processor.image_size`, or patches are masked or padded.
    """
    if tuple(inputs.pixels.shape[-2:]) != processor.image_size:
        height, width = processor.image_size
        raise SpecError(
            f"Images of {inputs.pixels.shape[-2]} x {inputs.pixels.shape[-1]} pixels; this backbone takes {height} x "
            f"{width}. Use its processor, or build it with another image_size."
        )
    if inputs.mask is not None or inputs.masked_patches is not None:
        raise SpecError("This backbone takes neither padded images nor masked patches. Leave both masks out.")
    return processor.normalise(inputs.pixels)


def all_real(tokens: Tensor) -> Tensor:
    """Return the mask bool [V, N] of tokens [V, N, D] without padding."""
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
