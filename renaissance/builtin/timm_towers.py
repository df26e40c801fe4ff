"""Image models of the timm library as modules: as a whole, or block by block where they are ViT-like.

Tokens are what `forward_features` gives: prefix tokens (class, distillation, registers) first, then the grid, row by
row; a feature map becomes one token for each cell. The pooled vector is the class token, or the mean of the grid.

Letters in shapes: V images, N tokens, M tokens of another modality behind them, D width, H and W height and width in
pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from renaissance.api import Features, LayeredBackbone, Positions, VisionInput
from renaissance.builtin.timm_blocks import Enumeration, Place
from renaissance.builtin.timm_plain import plain_timm
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
from renaissance.errors import CapabilityError, SpecError
from renaissance.toolkit.building import LooseParameters
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.layered import LayerState, fold, layer_indices, run_block
from renaissance.toolkit.pooling import masked_mean

# what runs before the blocks of a ViT-like model; class token, registers and position table sit on the model itself
EMBEDDINGS = ("patch_embed", "pos_drop", "patch_drop", "norm_pre", "rope", "rel_pos_bias")
# those of them that only the blocks read
BETWEEN_BLOCKS = ("rope", "rel_pos_bias")


class TimmVision(nn.Module):
    """A timm model without its head.

    grid: rows and columns of tokens at the size of `processor`; num_prefix_tokens: tokens before the grid.
    """

    def __init__(
        self, model: Any, processor: ImageProcessor, *, facts: Mapping[str, Any], revision: str | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self.width: int = facts["width"]
        self.grid: tuple[int, int] = tuple(facts["grid"])
        self.num_prefix_tokens: int = facts["num_prefix_tokens"]
        self.class_token: bool = facts["class_token"]
        self.revision = revision
        self._facts = dict(facts)

    @property
    def resized(self) -> tuple[str, ...]:
        """The names of the tensors that were fitted to another image size when the weights were read."""
        return tuple(self._facts.get("resized", ()))

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """None: its stages differ."""
        return ()

    @property
    def embeddings(self) -> Sequence[nn.Module]:
        """None, as it lists no blocks."""
        return ()

    @property
    def final(self) -> Sequence[nn.Module]:
        """None, as it lists no blocks."""
        return ()

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        """Encode pixels [V, 3, H, W]; return tokens [V, N, D].

        `layers` are its stages, each with tokens [V, N', D'] of its own; they cost a second pass.

        Raises:
            SpecError: the size of the images is not the model's, or a layer does not exist.
            CapabilityError: the images are padded or masked, or the model cannot give its layers.
        """
        pixels = self._normalised(inputs)
        wanted = self._stages(pixels, layers) if layers else ()
        return self._features(row_major(self.model, self.model.forward_features(pixels)), wanted)

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write `preprocessor.json` into `folder`; return the config from which `build` builds the model again."""
        self.processor.save(folder)
        return {**self._facts, "revision": self.revision}

    def to_timm(self) -> nn.Module:
        """Return a copy as a plain model of timm, without a classifier.

        Raises:
            CapabilityError: only the embeddings were kept, or it has adapters.
        """
        return plain_timm(self.model, self._facts, self.processor.image_size)

    def _stages(self, pixels: Tensor, layers: Sequence[int]) -> tuple[Tensor, ...]:
        """Return the outputs of these stages, each as tokens [V, N', D']."""
        if not hasattr(self.model, "forward_intermediates"):
            raise CapabilityError(f"timm:{self._name} cannot give its layers. Choose another backbone for this head.")
        wanted = layer_indices(layers, len(self.model.feature_info))
        maps = self.model.forward_intermediates(
            pixels, indices=sorted(set(wanted)), output_fmt="NCHW", intermediates_only=True
        )
        by_index = dict(zip(sorted(set(wanted)), maps, strict=True))
        return tuple(by_index[index].flatten(2).transpose(1, 2) for index in wanted)

    def _normalised(self, inputs: VisionInput) -> Tensor:
        """Return pixels [V, 3, H, W] as the model takes them."""
        if inputs.mask is not None or inputs.masked_patches is not None:
            raise CapabilityError(f"timm:{self._name} takes no padded images and no masked patches. Choose another.")
        size = tuple(inputs.pixels.shape[-2:])
        if self._facts["fixed_size"] and size != self.processor.image_size:
            raise SpecError(
                f"timm:{self._name} was built for images of {self.processor.image_size} pixels, these have {size}. "
                "Prepare them with its processor, or build it with image_size."
            )
        return self.processor.normalise(inputs.pixels).to(next(self.parameters()).dtype)

    def _features(self, tokens: Tensor, layers: tuple[Tensor, ...]) -> Features:
        grid = tokens[:, self.num_prefix_tokens :]
        pooled = tokens[:, 0] if self.class_token else grid.mean(dim=1)  # [V, D]
        return Features(tokens, all_real(tokens), pooled, layers)

    @property
    def _name(self) -> str:
        name: str = self._facts["options"]["model"]
        return name


class LayeredTimmVision(TimmVision):
    """A ViT-like timm model, whose blocks run one by one."""

    def __init__(
        self,
        model: Any,
        enumeration: Enumeration,
        processor: ImageProcessor,
        *,
        facts: Mapping[str, Any],
        revision: str | None = None,
    ) -> None:
        super().__init__(model, processor, facts=facts, revision=revision)
        self._enumeration = enumeration
        self.positions: Positions = enumeration.positions(model)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks in order."""
        return tuple(self.model.blocks)

    @property
    def embeddings(self) -> Sequence[nn.Module]:
        """What comes before the blocks: modules, and a view of the parameters that sit on the model itself."""
        return vit_embeddings(self.model)

    @property
    def final(self) -> Sequence[nn.Module]:
        """The norm after the last block."""
        return (self.model.norm,)

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        """Encode pixels [V, 3, H, W]; return tokens [V, N, D].

        Raises:
            SpecError: the size of the images is not the model's, or a layer does not exist.
            CapabilityError: the images are padded or masked.
        """
        return fold(cast(LayeredBackbone, self), inputs, layers)

    def embed(self, inputs: VisionInput) -> LayerState:
        """Return the state before the first block."""
        tokens, calls = self._enumeration.embed(self.model, self._normalised(inputs))
        return LayerState(tokens, all_real(tokens), calls)

    def embedded(self, inputs: VisionInput) -> Features:
        """Return the tokens [V, N, D] before the first block, all of them real."""
        state = self.embed(inputs)
        return Features(state.hidden, state.mask)

    def join(self, own: Features | None, other: Features | None) -> LayerState:
        """Return the state before the first block of own tokens [V, N, D] followed by others [V, M, D].

        Raises:
            SpecError: there is neither.
        """
        hidden, mask = joined(own, other)
        if other is None:
            return LayerState(hidden, mask, self._enumeration.join(self.model, None))
        count = 0 if own is None else own.tokens.shape[1]
        place = Place(count, padding_bias(mask, hidden.dtype))
        return JointState(hidden, mask, self._enumeration.join(self.model, place), own=count)

    def step(self, index: int, state: LayerState) -> LayerState:
        """Run one block."""
        return run_block(self.model.blocks[index], index, state)

    def finish(self, state: LayerState) -> Features:
        """Return the tokens after the final norm, and the pooled vector."""
        tokens = self.model.norm(state.hidden)
        real = mean_mask(state, self.num_prefix_tokens)
        if real is None:
            return self._features(tokens, ())
        return Features(tokens, state.mask, tokens[:, 0] if self.class_token else masked_mean(tokens, real))

    def keep_embeddings(self) -> None:
        """Drop the blocks and what follows them, for good: `embedded` is all that still works."""
        self.model.blocks, self.model.norm = nn.ModuleList(), nn.Identity()
        for name in BETWEEN_BLOCKS:
            if getattr(self.model, name, None) is not None:
                setattr(self.model, name, None)
        self._facts["embeddings_only"] = True

    def resize(self, size: int) -> tuple[str, ...]:
        """Take images of `size` pixels a side from now on; return the names of the tensors whose shape changed.

        Raises:
            SpecError: whole patches do not fill such an image.
        """
        check_side(f"timm:{self._name}", size, int(self.model.patch_embed.feat_ratio()))
        before = shapes(self)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of torch, on how timm interpolates BEiT's tables
            self.model.set_input_size((size, size))
        self.processor = self.processor.resized((size, size))
        rows, columns = self.model.patch_embed.grid_size
        self.grid = (rows, columns)
        self._facts["grid"] = [rows, columns]
        self._facts["options"] = {**self._facts["options"], "image_size": size}
        return changed_shapes(before, self)


def row_major(model: Any, output: Tensor) -> Tensor:
    """Return tokens [V, N, D] of tokens, or of a feature map in the model's own order of axes."""
    if output.dim() == 3:
        return output
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        return output.flatten(1, 2)
    return output.flatten(2).transpose(1, 2)


def vit_embeddings(model: nn.Module) -> Sequence[nn.Module]:
    """Return what a ViT-like model runs before its blocks: modules, and a view of its own loose parameters."""
    modules = [getattr(model, name, None) for name in EMBEDDINGS]
    loose = LooseParameters(model, [name for name, _ in model.named_parameters(recurse=False)])
    return *(module for module in modules if module is not None), loose
