"""Gathering over processes, with gradient; the identity where there is one process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from renaissance.api import Features


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def total(value: Tensor) -> Tensor:
    """Return the sum over processes, without gradient."""
    if world_size() == 1:
        return value.detach()
    summed = value.detach().clone()
    dist.all_reduce(summed)
    return summed


def gather(tensor: Tensor) -> Tensor:
    """Concatenate the tensors of all processes along dimension 0, in order of rank.

    Processes may differ in size 0 and 1; what is missing in dimension 1 is filled with zeros. The gradient that
    reaches a process's own rows is the sum over all processes.
    """
    if world_size() == 1:
        return tensor
    shapes = [torch.empty(2, dtype=torch.int64, device=tensor.device) for _ in range(world_size())]
    columns = tensor.shape[1] if tensor.ndim > 1 else 1
    dist.all_gather(shapes, torch.tensor([tensor.shape[0], columns], device=tensor.device))
    counts = [int(shape[0]) for shape in shapes]
    padded = _padded(tensor, max(counts), max(int(shape[1]) for shape in shapes))
    gathered = _Gather.apply(padded) if tensor.is_floating_point() else _all_gather(padded)
    return torch.cat([part[:count] for part, count in zip(gathered.chunk(world_size()), counts, strict=True)])


def gather_features(features: Features) -> Features:
    """Gather every tensor of the features."""
    if world_size() == 1:
        return features
    return Features(
        gather(features.tokens),
        gather(features.mask.to(torch.uint8)).bool(),
        None if features.pooled is None else gather(features.pooled),
        tuple(gather(layer) for layer in features.layers),
        None if features.embedded is None else gather(features.embedded),
    )


def offset(count: int, device: torch.device) -> int:
    """Return where the rows of this process begin among those of all processes; this one has `count`."""
    if world_size() == 1:
        return 0
    counts = [torch.empty(1, dtype=torch.int64, device=device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([count], device=device))
    return sum(int(other) for other in counts[: rank()])


class _Gather(torch.autograd.Function):
    """all_gather whose backward sums the gradients of all processes (torch's own was deprecated)."""

    @staticmethod
    def forward(context: object, tensor: Tensor) -> Tensor:
        return _all_gather(tensor)

    @staticmethod
    def backward(context: object, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        summed = gradient.contiguous()
        dist.all_reduce(summed)
        return summed.chunk(world_size())[rank()]


def _all_gather(tensor: Tensor) -> Tensor:
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def _padded(tensor: Tensor, rows: int, columns: int) -> Tensor:
    missing_rows = rows - tensor.shape[0]
    missing_columns = columns - tensor.shape[1] if tensor.ndim > 1 else 0
    if not (missing_rows or missing_columns):
        return tensor
    padding = [0, 0] * (tensor.ndim - 2) + ([0, missing_columns] if tensor.ndim > 1 else []) + [0, missing_rows]
    return torch.nn.functional.pad(tensor, padding)
