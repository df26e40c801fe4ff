"""Position tables of pretrained vision models for another image size."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from renaissance.builtin.transformers_sizes import vision_sizes

ABSOLUTE_TABLES = ("embeddings.position_embeddings", "embeddings.position_embedding.weight")
RELATIVE_TABLE = "relative_position_bias_table"
BEIT_SPECIAL = 3  # rows for class token to token, token to class token, and class token to itself


@torch.no_grad()
def resized_positions(model: nn.Module, resized: nn.Module) -> nn.Module:
    """Move the weights of `model` into `resized`, its twin for another image size; return that.

    Position tables are resized as the family resizes them.
    """
    config: Any = resized.config
    sizes = vision_sizes(config)
    weights = dict(model.state_dict())
    for name, table in weights.items():
        if name in ABSOLUTE_TABLES:
            weights[name] = _resized_absolute(model, table, sizes["image_size"])
        elif name.endswith(RELATIVE_TABLE) and config.model_type == "beit":
            weights[name] = _resized_relative(table, sizes["image_size"] // sizes["patch_size"])
    resized.load_state_dict(weights, assign=True)
    return resized.train(model.training)


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
