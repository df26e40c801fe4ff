"""SigLIP 2's vision encoder as a backbone: transformers' modules, run block by block.

Every image has `max_patches` tokens, of which those behind its last patch are padding, as in training: what an image
gives then depends in no bit on what else is in the batch.

Letters in shapes: V images, H and W height and width in pixels, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Siglip2VisionConfig, Siglip2VisionModel

from renaissance.api import Features, Positions, SavedBackbone, VisionInput, Weights
from renaissance.errors import CapabilityError, ModelFileError, SpecError
from renaissance.toolkit.building import build_empty
from renaissance.toolkit.layered import LayerState, fold
from renaissance_plugin_naflex.entries import BaseOptions
from renaissance_plugin_naflex.hub import pretrained
from renaissance_plugin_naflex.pictures import NaflexProcessor, grids, packed

SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size", "num_patches")


class Naflex(nn.Module):
    """The patch and position embeddings, the blocks, the final norm, and the attention pooling of SigLIP 2."""

    class_token = False
    positions: Positions = "absolute"

    def __init__(self, model: Any, processor: NaflexProcessor, revision: str | None) -> None:
        """Take the parts of transformers' `Siglip2VisionModel`."""
        super().__init__()
        self.patches = cast(nn.Linear, model.embeddings.patch_embedding)
        self.table = cast(nn.Embedding, model.embeddings.position_embedding)
        self.layers = cast(nn.ModuleList, model.encoder.layers)
        self.norm = cast(nn.LayerNorm, model.post_layernorm)
        self.head = cast(nn.Module, model.head)
        self.embeddings: Sequence[nn.Module] = (self.patches, self.table)
        self.blocks: Sequence[nn.Module] = tuple(self.layers)
        self.final: Sequence[nn.Module] = (self.norm, self.head)
        self.width: int = model.config.hidden_size
        self.sizes = {name: getattr(model.config, name) for name in SIZES}
        self.processor = processor
        self.revision = revision

    def forward(self, inputs: VisionInput, layers: Sequence[int] = ()) -> Features:
        """Encode pixels [V, 3, H, W], whose mask marks a rectangle of whole patches; return tokens [V, N, D].

        Raises:
            SpecError: an image has too many patches or parts of some, or there is no such layer.
            CapabilityError: patches are masked.
        """
        return fold(self, inputs, layers)

    def embed(self, inputs: VisionInput) -> LayerState:
        """Return the state before the first block: patches with their positions [V, N, D].

        Raises:
            SpecError: an image has too many patches, or parts of some.
            CapabilityError: patches are masked, or it is being exported.
        """
        if inputs.masked_patches is not None:
            raise CapabilityError("naflex takes no masked patches. Choose another backbone for 'mim'.")
        if torch.compiler.is_exporting():
            raise CapabilityError("naflex lays out the patches of each picture by its size, which no graph can")
        sizes = grids(inputs, self.processor.patch_size)
        most = self.processor.max_patches
        wide = next(((rows, columns) for rows, columns in sizes if rows * columns > most), None)
        if wide is not None:
            raise SpecError(
                f"naflex: an image has {wide[0]} x {wide[1]} patches, and max_patches={most}. Prepare images with the "
                "backbone's own processor, or build it with more patches."
            )
        pixels = self.processor.normalise(inputs.pixels).to(self.patches.weight.dtype)
        patches, mask = packed(pixels, sizes, self.processor.patch_size, most)
        return LayerState(self.patches(patches) + self._places(sizes, most), mask, ())

    def _places(self, sizes: Sequence[tuple[int, int]], length: int) -> Tensor:
        """Return the positions [V, N, D] of images with these grids, resized from the learned square; 0 for padding."""
        side = round(self.table.num_embeddings**0.5)
        square = self.table.weight.float().T.reshape(1, self.width, side, side)  # antialiasing has no bf16 on the CPU
        resized = {size: _resized(square, size, length) for size in set(sizes)}
        return torch.stack([resized[size] for size in sizes]).to(self.table.weight.dtype)

    def step(self, index: int, state: LayerState) -> LayerState:
        """Run one block; padding is attended to by none."""
        return replace(state, hidden=self.layers[index](state.hidden, attention_mask=state.mask[:, None, None]))

    def finish(self, state: LayerState) -> Features:
        """Return the normed tokens [V, N, D], and what SigLIP's head gathers from the real ones [V, D]."""
        tokens = self.norm(state.hidden)
        return Features(tokens, state.mask, self.head(tokens, state.mask))

    def resize(self, size: int) -> tuple[str, ...]:
        """Take as many patches as a square picture of `size` pixels a side has, from now on; no tensor changes.

        Raises:
            SpecError: no whole patches fill such a picture.
        """
        self.processor = self.processor.resized(size)
        return ()

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the preprocessing; return the config from which `build` builds the backbone again."""
        self.processor.save(folder)
        return {"siglip2_vision_model": self.sizes, "revision": self.revision}


def build(options: BaseOptions, *, weights: Weights, saved: SavedBackbone | None = None) -> Naflex:
    """Return the tower.

    Raises:
        SpecError: the heads do not divide the width, or pretrained weights have other sizes.
        HubError: pretrained weights cannot be had.
        ModelFileError: a saved model is not one of this backbone.
    """
    if weights == "none":
        assert saved is not None, "weights='none' builds from a saved config"
        return _rebuilt(saved)
    processor = NaflexProcessor(options.max_patches, options.patch_size)
    config = config_of(options)
    if weights == "random":
        return Naflex(_create(config), processor, None)
    model, revision = pretrained(options, config)
    return Naflex(model, processor, revision)


def config_of(options: BaseOptions) -> Siglip2VisionConfig:
    """Return transformers' config of these options.

    Raises:
        SpecError: the heads do not divide the width.
    """
    if options.width % options.heads:
        raise SpecError(f"naflex: {options.heads} heads do not divide a width of {options.width}. Change one of them.")
    sizes = (options.width, options.layers, options.heads, options.mlp_width, options.patch_size, options.positions**2)
    return _config(dict(zip(SIZES, sizes, strict=True)))


def _config(sizes: Mapping[str, int]) -> Siglip2VisionConfig:
    return Siglip2VisionConfig(**sizes, attn_implementation="sdpa")


def _create(config: Siglip2VisionConfig) -> Any:
    return Siglip2VisionModel(config)


def _rebuilt(saved: SavedBackbone) -> Naflex:
    sizes = saved.config.get("siglip2_vision_model")
    if not isinstance(sizes, Mapping) or set(sizes) != set(SIZES):
        raise ModelFileError(
            f"The saved config {dict(saved.config)!r} is not one of naflex. Save or download the model again."
        )
    model = build_empty(lambda: _create(_config(sizes)))
    return Naflex(model, NaflexProcessor.load(saved.folder), saved.config.get("revision"))


def _resized(square: Tensor, size: tuple[int, int], length: int) -> Tensor:
    """Return positions [N, D] of a grid of `size` (rows, columns), from a square [1, D, side, side]."""
    fitted = F.interpolate(square, size=size, mode="bilinear", align_corners=False, antialias=True)
    places = fitted.flatten(2)[0].T  # [rows * columns, D]
    return F.pad(places, (0, 0, 0, length - len(places)))
