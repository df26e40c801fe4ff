"""The check that the tokens of an image lie row by row.

A backbone that lists its blocks is held to the letter: the token of a changed patch moves most. So is any other, but
there each token may see the whole image through convolutions, and with random weights not most of its own cell: then
the middle of what moves must follow the changed patch, its row along the rows alone and its column along the columns.

Letters in shapes: V images, N tokens, R and C rows and columns of the token grid, K changed cells, H and W height and
width in pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from renaissance.api import VisionInput
from renaissance.testing.subjects import NotApplicable, Subject, failure, token_grid

CHECK = "grid order"
# Where a cell has the middle of what it sees, from (start) to (end) of its side: convolutions that pad on both sides
# centre it on the upper left corner of the cell, those that pad behind alone on the lower right one.
ANCHORS = ((0.0, 1.0), (0.0, 0.375), (0.3, 0.7), (0.625, 1.0))
# Correlations of the middle of what moves with the changed cell: along its own axis, and along the other one.
FOLLOWS, ALOOF = 0.8, 0.5
MOST_CELLS = 6

Cell = tuple[int, int]
Fill = Callable[[Tensor], Tensor]


@torch.no_grad()
def check_grid_order(subject: Subject) -> None:
    """Change some patches of an image, one at a time: the tokens of those patches are what moves.

    Raises:
        ConformanceError: others than those of the patches, or there are too few tokens to tell.
        NotApplicable: it encodes no images, or its tokens lie in no order of places.
    """
    if subject.modality == "text":
        raise NotApplicable("it encodes no images")
    if getattr(subject.backbone, "grid", ()) is None:
        raise NotApplicable("its tokens lie in no order of places")
    pixels = subject.inputs(1).pixels  # [1, 3, H, W]
    grid, _ = token_grid(subject, subject.backbone(VisionInput(pixels)).tokens.shape[1])
    if grid[0] * grid[1] < 4:
        raise failure(CHECK, f"a grid of {grid[0]} x {grid[1]}", "2 x 2 or more: build it for larger images")
    cells = _asymmetric(*grid)
    if any(_most(subject, pixels, cells, anchor) == cells for anchor in ANCHORS):
        return
    if not len(subject.backbone.blocks) and _regions_follow(subject, pixels, grid):
        return
    found = _most(subject, pixels, cells, ANCHORS[0])
    raise failure(CHECK, f"the tokens at {found} moved most", f"those of the changed patches, {cells}")


def _most(subject: Subject, pixels: Tensor, cells: list[Cell], anchor: tuple[float, float]) -> list[Cell]:
    """Return for each changed cell the token that moved most."""
    moved, (_, columns) = _moved(subject, pixels, cells, anchor, _opposite)
    return [divmod(token, columns) for token in moved.argmax(dim=1).tolist()]


def _regions_follow(subject: Subject, pixels: Tensor, grid: Cell) -> bool:
    """Whether the middle of what moves follows the changed patch, before or after batch norms saw real statistics."""
    for statistics in (False, True):
        if statistics:
            subject = _with_statistics(subject)
        if any(_follows(subject, pixels, grid, fill) for fill in (_opposite, _negative)):
            return True
    return False


def _follows(subject: Subject, pixels: Tensor, grid: Cell, fill: Fill) -> bool:
    cells = [(row, column) for row in _spread(grid[0]) for column in _spread(grid[1])]
    moved, _ = _moved(subject, pixels, cells, ANCHORS[0], fill)
    moved = moved / moved.mean(dim=0).clamp(min=1e-30)  # tokens at the border move less, whatever changes
    weights = moved - moved.amin(dim=1, keepdim=True)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-30)
    tokens = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).to(weights.dtype)  # [R * C, 2]
    both = torch.cat([torch.tensor(cells, dtype=weights.dtype), weights @ tokens], dim=1)  # [K, 4]
    table = torch.corrcoef(both.T)  # of row, column; of row and column of what moved
    own, other = (table[0, 2], table[1, 3]), (table[0, 3].abs(), table[1, 2].abs())
    return bool(min(own) >= FOLLOWS and max(other) <= ALOOF)


def _with_statistics(subject: Subject) -> Subject:
    """Return a copy whose batch norms have the statistics of random images: without, signals fade on their way."""
    backbone = copy.deepcopy(subject.backbone).train()
    for norm in backbone.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.momentum = 1.0
    backbone(subject.inputs(4, seed=5))
    return replace(subject, backbone=backbone.eval())


def _moved(
    subject: Subject, pixels: Tensor, cells: list[Cell], anchor: tuple[float, float], fill: Fill
) -> tuple[Tensor, Cell]:
    """Return how far each token of the grid moved for each changed cell [K, R * C], and the grid."""
    plain = subject.backbone(VisionInput(pixels)).tokens
    grid, prefix = token_grid(subject, plain.shape[1])
    changed = torch.cat([_changed(pixels, cell, grid, anchor, fill) for cell in cells])
    tokens = subject.backbone(VisionInput(changed)).tokens
    return (tokens - plain)[:, prefix:].norm(dim=-1), grid


def _asymmetric(rows: int, columns: int) -> list[Cell]:
    """Return cells that are not symmetric about the diagonal, so that a transposed grid shows."""
    wanted = [(0, columns - 1), (rows - 1, 0), (rows // 2, columns // 3), (rows - 1, columns - 2), (rows // 3, 0)]
    return list(dict.fromkeys((row, max(column, 0)) for row, column in wanted))


def _spread(count: int) -> list[int]:
    """Return all rows or columns, or as many as are looked at, spread evenly."""
    kept = min(count, MOST_CELLS)
    return [round(index * (count - 1) / max(kept - 1, 1)) for index in range(kept)]


def _changed(pixels: Tensor, cell: Cell, grid: Cell, anchor: tuple[float, float], fill: Fill) -> Tensor:
    """Return the image [1, 3, H, W] with the cell, from anchor to anchor, filled."""
    result = pixels.clone()
    (top, bottom), (left, right) = (
        (round((index + anchor[0]) * side / count), round((index + anchor[1]) * side / count))
        for index, count, side in zip(cell, grid, pixels.shape[-2:], strict=True)
    )
    result[:, :, top:bottom, left:right] = fill(pixels[:, :, top:bottom, left:right])
    return result


def _opposite(patch: Tensor) -> Tensor:
    """Return black for a bright patch, white for a dark one."""
    return torch.full_like(patch, 255 if patch.float().mean() < 128 else 0)


def _negative(patch: Tensor) -> Tensor:
    return 255 - patch
