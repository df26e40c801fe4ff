"""The vision encoders of `transformers` whose blocks run one by one.

Letters in shapes: V images, H and W height and width in pixels, N tokens (prefix tokens first, then the grid row by
row), M tokens of another modality behind them, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedConfig

from renaissance.api import Features, Positions, VisionInput
from renaissance.builtin.transformers_loading import empty, model_class
from renaissance.builtin.transformers_plain import plain_model
from renaissance.builtin.transformers_positions import let_others_join, resize_parts
from renaissance.builtin.transformers_sizes import config_from, config_values, vision_sizes, with_sizes
from renaissance.builtin.transformers_vision_families import Family
from renaissance.builtin.transformers_vision_pixels import normalised
from renaissance.builtin.transformers_vision_types import VISION_TYPES
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
from renaissance.toolkit.building import drop_parts
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.layered import Call, LayerState, fold, modules_at, record, run_block, take_blocks


def empty_model(config: PreTrainedConfig, pooler: bool = False) -> nn.Module:
    """Return the model of a config without weights: parameters on the meta device, buffers real."""
    return without_mask_token(empty(model_class(config.model_type, config), config, **model_arguments(config, pooler)))


def without_mask_token(model: Any) -> nn.Module:
    """Drop the token for masked patches, which some models have whatever their config says."""
    if getattr(getattr(model, "embeddings", None), "mask_token", None) is not None:
        model.embeddings.mask_token = None
    result: nn.Module = model
    return result


def model_arguments(config: PreTrainedConfig, pooler: bool = False) -> dict[str, Any]:
    """Return what the library's class is built with beside the config, with its pooler or without."""
    return {"add_pooling_layer": pooler or (config.model_type == "beit" and config.use_mean_pooling)}


def check_grid(name: str, config: PreTrainedConfig, image_size: int) -> None:
    """Check that whole tokens fill the image.

    Raises:
        SpecError: they do not.
    """
    step = VISION_TYPES[config.model_type].size_step(config_values(config))
    if step is not None:
        check_side(name, image_size, step)


class LayeredVision(nn.Module):
    """A vision encoder whose blocks run one by one. `config` is what it is built again from."""

    def __init__(self, model: nn.Module, family: Family, processor: ImageProcessor, config: Mapping[str, Any]) -> None:
        super().__init__()
        let_others_join(model)
        self.blocks = take_blocks(model, family.blocks)
        self.model = model
        self.embeddings = modules_at(model, family.embeddings)
        self._pooler = family.pooler if config.get("pooler", False) else None
        self._ends = (*family.final, *filter(None, [self._pooler]))
        self.final = modules_at(model, self._ends)
        self.positions: Positions = family.positions
        self._family = family
        self.width: int = cast(PreTrainedConfig, model.config).hidden_size
        self.class_token = family.class_token
        self.prefix_tokens = family.prefix
        self.processor = processor
        self.config = config
        self.revision: str | None = config["revision"]

    @property
    def resized(self) -> tuple[str, ...]:
        """The names of the tensors that were fitted to another image size when the weights were read."""
        return tuple(self.config.get("resized", ()))

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        """Encode pixels [V, 3, H, W]; return tokens [V, N, D].

        Raises:
            SpecError: the pixels have another size than `processor.image_size`, or there is no such layer.
        """
        return fold(self, inputs, layers)

    def embed(self, inputs: VisionInput) -> LayerState:
        """Return the state before the first block."""
        hidden, calls = self._record(normalised(inputs, self.processor, self.model))
        return LayerState(hidden, all_real(hidden), calls)

    def _record(self, pixels: Tensor) -> tuple[Tensor, tuple[Call, ...]]:
        """Return what pixels [V, 3, H, W] are before the first block, [V, N, D], and the call of each block."""
        return record(self.model, {"pixel_values": pixels, **self._family.inputs(self.model.config, pixels)})

    def embedded(self, inputs: VisionInput) -> Features:
        """Return the tokens [V, N, D] before the first block, all of them real."""
        hidden, _ = self._record(normalised(inputs, self.processor, self.model))
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
        if self._family.positions == "rope":
            return {"attention_mask": bias, "position_embeddings": self._rotations(hidden, grid=grid)}
        if not self._family.told_size:
            return {"attention_mask": bias}
        resolution = self.processor.image_size if grid else (0, 0)
        if (shared := cast(Any, self.model).shared_position_bias) is not None:
            patch = vision_sizes(cast(PreTrainedConfig, self.model.config))["patch_size"]
            distances = shared((resolution[0] // patch, resolution[1] // patch), dim_size=hidden.shape[1])
            bias = distances if bias is None else distances + bias
        return {"attention_mask": bias, "interpolate_pos_encoding": False, "resolution": resolution}

    def _rotations(self, hidden: Tensor, *, grid: bool) -> tuple[Tensor, Tensor]:
        """Return cosines and sines [K, D / heads] of the last K of the tokens [V, N, D]: others are not turned."""
        blank = hidden.new_zeros(1, 3, *self.processor.image_size)
        embedded, calls = self._record(blank)
        cosines, sines = calls[0].kwargs["position_embeddings"]
        if not grid:
            cosines, sines = cosines[:0], sines[:0]
        others = hidden.shape[1] - (embedded.shape[1] if grid else 0)
        return (
            functional.pad(cosines, (0, 0, 0, others), value=1.0),
            functional.pad(sines, (0, 0, 0, others), value=0.0),
        )

    def step(self, index: int, state: LayerState) -> LayerState:
        """Run one block."""
        return run_block(self.blocks[index], index, state)

    def finish(self, state: LayerState) -> Features:
        """Apply the final norm and pool, as the family does."""
        tokens, pooled = self._family.read(self.final, state.hidden, mean_mask(state, self.prefix_tokens))
        if self._pooler is not None:
            pooled = self.final[-1](tokens)
        return Features(tokens, state.mask, pooled)

    def keep_embeddings(self) -> None:
        """Drop the blocks and what follows them, for good: `embedded` is all that still works."""
        self.blocks = cast("Sequence[nn.Module]", nn.ModuleList())
        model: Any = self.model
        drop_parts(model, [path for path in self._ends if getattr(model, path, None) is not None])
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
        check_grid(wanted.model_type, wanted, size)
        before = shapes(self)
        twin = empty_model(wanted)
        twin_blocks = cast("Sequence[nn.Module]", twin.get_submodule(self._family.blocks))
        resize_parts(self.model, self.blocks, twin, twin_blocks, self._family.embeddings)
        let_others_join(self)
        self.embeddings = modules_at(self.model, self._family.embeddings)
        self.processor = self.processor.resized((size, size))
        self.config = {**self.config, "transformers": config_values(wanted)}
        return changed_shapes(before, self)

    def to_transformers(self) -> nn.Module:
        """Return a copy as a plain model of `transformers`.

        Raises:
            CapabilityError: only the embeddings were kept, or it has adapters.
        """
        arguments = model_arguments(cast(PreTrainedConfig, self.model.config), self._pooler is not None)
        return plain_model(self.model, self.blocks, self._family.blocks, self.config, **arguments)

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the preprocessing; return the config."""
        self.processor.save(folder)
        return self.config
