"""Positions of vision models: tables for another image size, and distances where tokens are not of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.beit.modeling_beit import BeitRelativePositionBias

from renaissance.builtin.transformers_sizes import vision_sizes

ABSOLUTE_TABLES = ("embeddings.position_embeddings", "embeddings.position_embedding.weight")
RELATIVE_BIAS = "relative_position_bias"
RELATIVE_TABLE = "relative_position_bias_table"
BEIT_SPECIAL = 3  # rows for class token to token, token to class token, and class token to itself


class JoinedBias(BeitRelativePositionBias):  # type: ignore[misc]  # transformers is not typed
    """BEiT's bias by distance in a sequence where others follow the tokens of the image: no distance to those."""

    def forward(
        self, window_size: tuple[int, int], interpolate_pos_encoding: bool = False, dim_size: int | None = None
    ) -> Tensor:
        """Return the bias [1, heads, N, N] of a sequence of N = dim_size tokens.

        window_size: rows and columns of the image's tokens; (0, 0): there is no image.
        """
        table: Tensor = self.relative_position_bias_table
        if window_size == (0, 0):
            return table.new_zeros(1, table.shape[1], dim_size or 0, dim_size or 0)
        bias: Tensor = super().forward(window_size, interpolate_pos_encoding, dim_size)
        others = (dim_size or 0) - bias.shape[-1]
        return functional.pad(bias, (0, others, 0, others)) if others > 0 else bias


def let_others_join(model: nn.Module) -> None:
    """Let the biases by distance in `model`, if it has any, take sequences with tokens that are not of the image."""
    for module in model.modules():
        if type(module) is BeitRelativePositionBias:
            module.__class__ = JoinedBias


@torch.no_grad()
def resized_positions(model: nn.Module, resized: nn.Module) -> nn.Module:
    """Move the weights of `model` into `resized`, its twin for another image size; return that.

    Position tables are resized as the family resizes them.
    """
    weights = {name: _fitting(model, name, tensor, resized.config) for name, tensor in model.state_dict().items()}
    resized.load_state_dict(weights, assign=True)
    return resized.train(model.training)


@torch.no_grad()
def resize_parts(
    model: nn.Module,
    blocks: Sequence[nn.Module],
    twin: nn.Module,
    twin_blocks: Sequence[nn.Module],
    embeddings: Sequence[str],
) -> None:
    """Give `model`, whose `blocks` were taken out, those parts of its empty twin that depend on the image size.

    These are the `embeddings`, and in each block the bias by distance; the rest stays the very modules that it is.
    """
    places: list[tuple[nn.Module, nn.Module, str]] = [(model, twin, name) for name in embeddings]
    # embeddings that were kept alone have no blocks, and the twin has
    places += [(block, other, RELATIVE_BIAS) for block, other in zip(blocks, twin_blocks, strict=False)]
    for owner, twin_owner, name in places:
        old, new = getattr(owner, name, None), getattr(twin_owner, name, None)
        if old is None or new is None:
            continue
        weights = {
            key: _fitting(model, f"{name}.{key}", tensor, twin.config) for key, tensor in old.state_dict().items()
        }
        new.load_state_dict(weights, assign=True)
        needs = {key: parameter.requires_grad for key, parameter in old.named_parameters()}
        for key, parameter in new.named_parameters():
            parameter.requires_grad_(needs[key])
        setattr(owner, name, new.to(next(new.parameters()).device).train(old.training))
    model.config = twin.config


def _fitting(model: nn.Module, name: str, tensor: Tensor, config: Any) -> Tensor:
    """Return this tensor of `model` as it is in a model of `config`, which differs in the image size."""
    sizes = vision_sizes(config)
    if name in ABSOLUTE_TABLES:
        return _resized_absolute(model, tensor, sizes["image_size"])
    if name.endswith(RELATIVE_TABLE) and config.model_type == "beit":
        return _resized_relative(tensor, sizes["image_size"] // sizes["patch_size"])
    return tensor


def _resized_absolute(model: Any, table: Tensor, image_size: int) -> Tensor:
    """Return the table of absolute positions [1, N, D] or [N, D] for another image, by the family's bicubic rule."""
    sizes = vision_sizes(model.config)
    prefix = table.shape[-2] - (sizes["image_size"] // sizes["patch_size"]) ** 2
    tokens = (image_size // sizes["patch_size"]) ** 2 + prefix
    inputs = table.new_empty(1, tokens, table.shape[-1])
    resized: Tensor = model.embeddings.interpolate_pos_encoding(inputs, image_size, image_size)
    return resized.detach().clone().view(*table.shape[:-2], tokens, table.shape[-1])


def _resized_relative(table: Tensor, side: int) -> Tensor:
    """Return BEiT's table of relative positions [(2 * side - 1) ** 2 + 3, heads], by the family's own bilinear rule."""
    near, special = table[:-BEIT_SPECIAL], table[-BEIT_SPECIAL:]
    old, new = math.isqrt(len(near)), 2 * side - 1
    grid = near.view(1, old, old, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(grid, size=(new, new), mode="bilinear")
    return torch.cat([resized.permute(0, 2, 3, 1).reshape(new * new, -1), special])
