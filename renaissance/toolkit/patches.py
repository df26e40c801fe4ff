"""Patches of images: which ones to hide, hiding them, and what they hold.

Letters: V images, H and W height and width in pixels, S side of a patch in pixels, N patches row by row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from renaissance.toolkit.random import uniform

# of blocks of patches, as in BEiT (arXiv 2106.08254, algorithm 1): longest side against shortest, and draws made
# before single patches fill what is missing
ASPECT = 1 / 0.3
TRIES = 32


def patches(pixels: Tensor, side: int) -> Tensor:
    """Return pixels [V, 3, H, W] as patches [V, N, 3 S S]."""
    return torch.nn.functional.unfold(pixels, side, stride=side).transpose(1, 2)


def normalised_patches(pixels: Tensor, side: int) -> Tensor:
    """Return patches float [V, N, 3 S S], each with mean 0 and variance 1 (arXiv 2111.06377, section 4.1)."""
    found = patches(pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels, side)
    variance, mean = torch.var_mean(found, dim=-1, keepdim=True)
    return (found - mean) / (variance + 1e-6).sqrt()


def hidden(pixels: Tensor, masked: Tensor, patch: Tensor) -> Tensor:
    """Return float pixels [V, 3, H, W] with `patch` [3, S, S] in the place of the masked ones, bool [V, N]."""
    side = patch.shape[-1]
    rows, columns = pixels.shape[-2] // side, pixels.shape[-1] // side
    where = masked.view(-1, 1, rows, columns).repeat_interleave(side, 2).repeat_interleave(side, 3)  # [V, 1, H, W]
    return torch.where(where, patch.to(pixels.dtype).tile(1, rows, columns), pixels)


def scattered(seeds: Tensor, count: int, grid: tuple[int, int]) -> Tensor:
    """Choose `count` patches of each image, all being equally likely: seeds int64 [V] -> bool [V, N]."""
    chance = uniform(seeds, "mim patch", grid[0] * grid[1])
    return _lowest(chance, torch.full_like(seeds, count))


def blocks(seeds: Tensor, count: int, grid: tuple[int, int]) -> Tensor:
    """Choose `count` patches of each image in rectangular blocks: seeds int64 [V] -> bool [V, N].

    Blocks of drawn place, size and shape are added while they fit into the count; where no more do, single patches
    fill what is missing.
    """
    rows, columns = grid
    draws = uniform(seeds, "mim block", 4 * TRIES).view(-1, TRIES, 4)
    least = max(1, min(count, rows * columns // 12))  # 16 of the 196 patches of an image of 224 pixels
    masked = torch.zeros(len(seeds), rows * columns, dtype=torch.bool, device=seeds.device)
    for attempt in draws.unbind(1):
        left = (count - masked.sum(1)).clamp(min=least)
        added = masked | _rectangle(attempt, least, left, grid)
        masked = torch.where((added.sum(1) <= count).unsqueeze(1), added, masked)
    chance = uniform(seeds, "mim patch", rows * columns) + masked
    return masked | _lowest(chance, count - masked.sum(1))


def _rectangle(draws: Tensor, least: int, most: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return a rectangle of `least` to `most` [V] patches for each image, bool [V, N], from draws in [0, 1) [V, 4]."""
    rows, columns = grid
    area = least + draws[:, 0] * (most - least)
    aspect = torch.exp((2 * draws[:, 1] - 1) * math.log(ASPECT))
    height = (area * aspect).sqrt().round().clamp(1, rows)
    width = (area / aspect).sqrt().round().clamp(1, columns)
    top = (draws[:, 2] * (rows - height + 1)).floor()
    left = (draws[:, 3] * (columns - width + 1)).floor()
    row = torch.arange(rows, device=draws.device)
    column = torch.arange(columns, device=draws.device)
    inside_rows = (row >= top[:, None]) & (row < (top + height)[:, None])  # [V, rows]
    inside_columns = (column >= left[:, None]) & (column < (left + width)[:, None])
    return (inside_rows[:, :, None] & inside_columns[:, None]).flatten(1)


def _lowest(chance: Tensor, count: Tensor) -> Tensor:
    """Return which of the numbers [V, N] are the `count` [V] lowest of their row, bool [V, N]."""
    return chance.argsort(dim=1).argsort(dim=1) < count.unsqueeze(1)
