"""The vision encoders of `transformers` as modules: block by block where their blocks are alike, or as a whole.

Letters in shapes: V images, H and W height and width in pixels, N tokens (prefix tokens first, then the grid row by
row), M tokens of another modality behind them, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedConfig

from renaissance.api import Features, Positions, VisionInput
from renaissance.builtin.transformers_loading import empty, model_class
from renaissance.builtin.transformers_positions import let_others_join, resize_parts
from renaissance.builtin.transformers_refusals import refuse_layers
from renaissance.builtin.transformers_sizes import config_from, config_values, vision_sizes, with_sizes
from renaissance.builtin.transformers_vision_families import Family
from renaissance.builtin.vision_base import (
    JointState,
    all_real,
    changed_shapes,
    check_side,
    joined,
    mean_mask,
    padding_bias,
    shapes,
)
from renaissance.errors import SpecError
from renaissance.toolkit.building import drop_parts
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.layered import Call, LayerState, fold, modules_at, record, run_block, take_blocks


def empty_model(config: PreTrainedConfig) -> nn.Module:
    """Return the model of a config without weights: parameters on the meta device, buffers real."""
    return without_mask_token(empty(model_class(config.model_type, config), config, **model_arguments(config)))


def without_mask_token(model: Any) -> nn.Module:
    """Drop the token for masked patches, which DINOv2 with registers has whatever its config says."""
    if getattr(model.embeddings, "mask_token", None) is not None:
        model.embeddings.mask_token = None
    result: nn.Module = model
    return result


def model_arguments(config: PreTrainedConfig) -> dict[str, Any]:
    """Return what the library's class is built with beside the config."""
    return {"add_pooling_layer": config.model_type == "beit" and config.use_mean_pooling}


def check_grid(name: str, config: PreTrainedConfig) -> None:
    """Check that whole tokens fill the image.

    Raises:
        SpecError: they do not.
    """
    sizes = vision_sizes(config)
    # Swin's tokens double their side from stage to stage
    side = sizes["patch_size"] * (2 ** (len(sizes["depths"]) - 1) if "depths" in sizes else 1)
    check_side(name, sizes["image_size"], side)


class LayeredVision(nn.Module):
    """A vision encoder whose blocks run one by one. `config` is what it is built again from."""

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
        let_others_join(model)
        self.blocks = take_blocks(model, blocks)
        self.model = model
        self.embeddings = modules_at(model, family.embeddings)
        self.final = modules_at(model, family.final)
        self.positions: Positions = family.positions
        self._family = family
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

    def embedded(self, inputs: VisionInput) -> Features:
        """Return the tokens [V, N, D] before the first block, all of them real."""
        hidden, _ = record(self.model, {"pixel_values": normalised(inputs, self.processor)})
        return Features(hidden, all_real(hidden))

    def join(self, own: Features | None, other: Features | None) -> LayerState:
        """Return the state before the first block of own tokens [V, N, D] followed by others [V, M, D].

        Raises:
            SpecError: there is neither.
        """
        hidden, mask = joined(own, other)
        bias = None if other is None else padding_bias(mask, hidden.dtype)
        calls = (Call((), self._arguments_of(hidden, bias, grid=own is not None)),) * len(self.blocks)
        if other is None:
            return LayerState(hidden, mask, calls)
        return JointState(hidden, mask, calls, own=0 if own is None else own.tokens.shape[1])

    def _arguments_of(self, hidden: Tensor, bias: Tensor | None, *, grid: bool) -> dict[str, Any]:
        """Return what each block is called with; grid: the first of the tokens [V, N, D] are those of an image."""
        if not self._family.told_size:
            return {"attention_mask": bias}
        resolution = self.processor.image_size if grid else (0, 0)
        if (shared := cast(Any, self.model).shared_position_bias) is not None:
            patch = vision_sizes(cast(PreTrainedConfig, self.model.config))["patch_size"]
            distances = shared((resolution[0] // patch, resolution[1] // patch), dim_size=hidden.shape[1])
            bias = distances if bias is None else distances + bias
        return {"attention_mask": bias, "interpolate_pos_encoding": False, "resolution": resolution}

    def step(self, index: int, state: LayerState) -> LayerState:
        """Run one block."""
        return run_block(self.blocks[index], index, state)

    def finish(self, state: LayerState) -> Features:
        """Apply the final norm and pool, as the family does."""
        tokens, pooled = self._family.read(self.final, state.hidden, mean_mask(state, self.prefix_tokens))
        return Features(tokens, state.mask, pooled)

    def keep_embeddings(self) -> None:
        """Drop the blocks and what follows them, for good: `embedded` is all that still works."""
        self.blocks = cast("Sequence[nn.Module]", nn.ModuleList())
        model: Any = self.model
        drop_parts(model, [path for path in self._family.final if getattr(model, path, None) is not None])
        if self._family.told_size:
            model.shared_position_bias = None
        self.embeddings, self.final = modules_at(model, self._family.embeddings), ()
        self.config = {**self.config, "embeddings_only": True}

    def resize(self, size: int) -> tuple[str, ...]:
        """Take images of `size` pixels a side from now on; return the names of the tensors whose shape changed.

        Raises:
            SpecError: whole patches do not fill such an image.
        """
        wanted = with_sizes(config_from(self.config["transformers"]), {"image_size": size})
        check_grid(wanted.model_type, wanted)
        before = shapes(self)
        twin = empty_model(wanted)
        assert self._family.blocks is not None, "a layered family has blocks"
        twin_blocks = cast("Sequence[nn.Module]", twin.get_submodule(self._family.blocks))
        resize_parts(self.model, self.blocks, twin, twin_blocks, self._family.embeddings)
        let_others_join(self)
        self.embeddings = modules_at(self.model, self._family.embeddings)
        self.processor = self.processor.resized((size, size))
        self.config = {**self.config, "transformers": config_values(wanted)}
        return changed_shapes(before, self)

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
