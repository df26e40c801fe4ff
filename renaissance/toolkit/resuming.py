"""Go on in the middle of a layered backbone: from what its first blocks gave, computed a moment or a month ago.

The blocks after them are called with masks and positions that the backbone's own `embed` gives. Those of a text follow
from its token ids; those of images are the same for all images of one size, and are taken from a blank one.

Letters in shapes: V images, T texts, B inputs, N and L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import nn

from renaissance.api import Features, LayeredBackbone, Prefix, TextInput, VisionInput
from renaissance.toolkit.devices import moved
from renaissance.toolkit.layered import LayerState, layer_indices


def goes_on(tower: Any) -> bool:
    """Return whether a tower can go on from stored blocks: it lists them, and they see the tokens that are stored.

    A text tower that fills up its context, so that padding is part of what it computes, cannot.
    """
    if not len(tower.blocks):
        return False
    inputs = blank_images(tower, 1) if hasattr(tower.processor, "image_size") else tower.processor(["a"])
    device = next(tower.parameters()).device
    with torch.no_grad():
        state = tower.embed(moved(inputs, device))
    return isinstance(state, LayerState) and state.hidden.shape[1] == state.mask.shape[1]


def blank_images(tower: Any, count: int) -> VisionInput:
    """Return `count` images [V, 3, H, W] without content, of the size of the tower; they take the room of one."""
    return VisionInput(torch.zeros(1, 3, *tower.processor.image_size, dtype=torch.uint8).expand(count, -1, -1, -1))


def begun(tower: LayeredBackbone, inputs: VisionInput | TextInput, after: Prefix | None) -> LayerState:
    """Return the state before the first block, or before the block that follows `after`."""
    if after is None:
        fresh: LayerState = tower.embed(inputs)
        return fresh
    own: LayerState
    with torch.no_grad():  # what is before a stored block holds still, and so does what it gives the later ones
        if isinstance(inputs, VisionInput):
            own = tower.embed(moved(blank_images(tower, 1), after.tokens.device))
        else:
            own = tower.embed(_cut(inputs, after.tokens.shape[1]))
    return replace(own, hidden=after.tokens, mask=after.mask)


def stepped(tower: LayeredBackbone, state: LayerState, first: int, last: int) -> LayerState:
    """Return the state after the blocks from `first` on, up to and without `last`."""
    for index in range(first, last):
        state = tower.step(index, state)
    return state


def finished(tower: LayeredBackbone, state: LayerState, first: int, layers: Sequence[int] = ()) -> Features:
    """Run the blocks from `first` on and what follows them, keeping the outputs [B, N, D] of the `layers` asked for.

    Raises:
        SpecError: there is no such layer.
    """
    wanted = layer_indices(layers, len(tower.blocks))
    assert all(index >= first - 1 for index in wanted), "a layer was asked for that is not run"
    kept = {first - 1: state.hidden}
    for index in range(first, len(tower.blocks)):
        state = tower.step(index, state)
        if index in wanted:
            kept[index] = state.hidden
    return replace(tower.finish(state), layers=tuple(kept[index] for index in wanted))


def frozen_blocks(tower: Any) -> int:
    """Return how many first blocks of a tower hold still with all that is before them; 0: there is no such prefix."""
    blocks: Sequence[nn.Module] = tuple(tower.blocks)
    trained = {id(held) for held in tower.parameters() if held.requires_grad}
    after = {id(held) for part in (*blocks, *tower.final) for held in part.parameters()}
    if not trained <= after:  # something before the blocks, or between them, is trained
        return 0
    still = [not any(held.requires_grad for held in block.parameters()) for block in blocks]
    return still.index(False) if False in still else len(blocks)


def _cut(inputs: TextInput, length: int) -> TextInput:
    """Return texts [T, L] without the tokens from `length` on, none of which is real."""
    named = ((field.name, getattr(inputs, field.name)) for field in fields(inputs))
    return replace(inputs, **{name: value[:, :length] for name, value in named if value is not None})
