"""What a tower starts from beside its own weights: a shuffle of them, or the embeddings of another start."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from renaissance.errors import SpecError
from renaissance.toolkit.random import stream_seed


@torch.no_grad()
def shuffle(tower: nn.Module, seed: int, part: str) -> None:
    """Permute each floating tensor of a tower's state over all its elements: what it knew is gone, its scale is not.

    Norms, biases and batch statistics are permuted too; a tensor that stands there by two names, once. The order is
    drawn from (seed, part, name of the tensor).
    """
    done: set[int] = set()
    for name, tensor in tower.state_dict(keep_vars=True).items():
        if not tensor.is_floating_point() or id(tensor) in done:
            continue
        done.add(id(tensor))
        generator = torch.Generator().manual_seed(stream_seed(seed, part, "shuffled", name))
        order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
        tensor.copy_(tensor.flatten()[order].view_as(tensor))


def take_embeddings(tower: Any, other: Any, *, name: str) -> None:
    """Give a tower the embeddings of another one of the same sizes; `name`: what the tower is called.

    Raises:
        SpecError: the tower does not list its embeddings.
    """
    if not len(tower.embeddings):
        raise SpecError(f"'{name}' does not list its embeddings; let them start as the rest of it does.")
    for own, given in zip(tower.embeddings, other.embeddings, strict=True):
        own.load_state_dict(given.state_dict(), strict=True)
