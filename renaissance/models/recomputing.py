"""Gradient checkpointing: blocks keep their inputs alone, and are run again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from renaissance.errors import SpecError
from renaissance.models.two_tower import TwoTower, holds_still
from renaissance.toolkit.recompute import run


def recompute(encoder: nn.Module) -> None:
    """Let the blocks of each trained tower, and of the fusion head, run again in the backward pass.

    Gradients stay the same, bit for bit.

    Raises:
        SpecError: a part that is trained does not list its blocks.
    """
    towers = ("vision", "text") if isinstance(encoder, TwoTower) else ("encoder",)
    for name in towers:
        _recompute_blocks(name, getattr(encoder, name))
    if isinstance(encoder, TwoTower) and encoder.outputs:
        _recompute_head(encoder.fusion)


def _recompute_blocks(name: str, tower: Any) -> None:
    if holds_still(tower):
        return
    if not len(tower.blocks):
        raise SpecError(
            f"The {name} tower does not list its blocks, so gradient_checkpointing cannot run them again; leave "
            f"gradient_checkpointing out, or say 'frozen {name}'."
        )
    for block in tower.blocks:
        block.forward = partial(_again, block.forward)


def _again(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return run(partial(forward, **kwargs), True, *args)


def _recompute_head(fusion: Any) -> None:
    if any(True for _ in fusion.parameters()) and hasattr(fusion, "recompute"):
        fusion.recompute = True
