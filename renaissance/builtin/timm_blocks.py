"""The blocks of timm's ViT-like models, one by one, also on sequences where others follow the tokens of the image.

Letters in shapes: V images, N tokens of the image (prefix tokens first), M others behind them, S = N + M, D width,
H attention heads.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from timm.models import beit, eva, vision_transformer
from torch import Tensor, nn
from torch.nn import functional

from renaissance.api import Positions
from renaissance.toolkit.layered import Call

Calls = tuple[Call, ...]
# tokens [V, N, D], and the call of each block; whoever only passes the calls on need not know what they are
State = tuple[Tensor, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the tokens of an image stand in a joint sequence: the first `own` of S.

    padding [V, 1, 1, S] is added to all attention scores, shared [1, H, N, N] to those within the image.
    """

    own: int
    padding: Tensor
    shared: Tensor | None = None

    def bias(self, within: Tensor | None) -> Tensor:
        """Return what to add to attention scores [V, H, S, S]; within [1, H, N, N]: the block's own distances."""
        parts = [part for part in (within, self.shared) if part is not None] if self.own else []
        if not parts:
            return self.padding
        others = self.padding.shape[-1] - self.own
        return functional.pad(sum(parts[1:], parts[0]), (0, others, 0, others)) + self.padding


@dataclass(frozen=True, slots=True)
class Enumeration:
    """How a ViT-like model runs block by block.

    embed: pixels to tokens [V, N, D] before the first block, and the call of each block. join: the call of each block
    for a sequence at this place. positions: how the model tells its tokens apart.
    """

    embed: Callable[[Any, Tensor], State]
    join: Callable[[Any, Place | None], Calls]
    positions: Callable[[Any], Positions]

    def step(self, model: Any, index: int, state: State) -> State:
        """Run one block."""
        tokens, calls = state
        return model.blocks[index](tokens, **calls[index].kwargs), calls


class JoinedAttention(beit.Attention):  # type: ignore[misc]  # timm is not typed
    """BEiT's attention, which also takes sequences with tokens that are not of the image: no distance to those."""

    def forward(self, x: Tensor, shared_rel_pos_bias: Tensor | Place | None = None) -> Tensor:
        """Return tokens [V, S, D]."""
        if not isinstance(shared_rel_pos_bias, Place):
            plain: Tensor = super().forward(x, shared_rel_pos_bias)
            return plain
        within = None if self.relative_position_bias_table is None else self._get_rel_pos_bias()
        # the same parameters without the table: what it stands for is in the bias already, with room for the others
        bare = copy(self)
        bare._parameters = {**self._parameters, "relative_position_bias_table": None}
        joint: Tensor = beit.Attention.forward(bare, x, shared_rel_pos_bias.bias(within))
        return joint


def let_others_join(model: nn.Module) -> None:
    """Let the biases by distance in `model`, if it has any, take sequences with tokens that are not of the image."""
    for module in model.modules():
        if type(module) is beit.Attention:
            module.__class__ = JoinedAttention


def enumeration_of(model: Any) -> Enumeration | None:
    """Return how this model's blocks are run one by one; None for a model that is not known to be such a fold.

    The key is the very function that the class runs, so a subclass with a forward of its own does not match.
    """
    known = {
        vision_transformer.VisionTransformer.forward_features: Enumeration(_embed_vit, _join_vit, _absolute),
        eva.Eva.forward_features: Enumeration(_embed_eva, _join_eva, _positions_of_eva),
        beit.Beit.forward_features: Enumeration(_embed_beit, _join_beit, _positions_of_beit),
    }
    return known.get(type(model).forward_features)


def _calls(model: Any, **arguments: Any) -> Calls:
    return (Call((), arguments),) * len(model.blocks)


def _absolute(model: Any) -> Positions:
    return "none" if model.pos_embed is None else "absolute"


def _embed_vit(model: Any, pixels: Tensor) -> State:
    tokens = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(pixels))))
    return tokens, _join_vit(model, None)


def _join_vit(model: Any, place: Place | None) -> Calls:
    return _calls(model, attn_mask=None if place is None else place.padding)


def _positions_of_eva(model: Any) -> Positions:
    return _absolute(model) if model.rope is None else "rope"


def _embed_eva(model: Any, pixels: Tensor) -> State:
    tokens, rotations = model._pos_embed(model.patch_embed(pixels))
    return model.norm_pre(tokens), _rotated(model, rotations, None)


def _join_eva(model: Any, place: Place | None) -> Calls:
    padding = None if place is None else place.padding
    if model.rope is None or (place is not None and place.own == 0):
        return _rotated(model, None, padding)
    known = not model.dynamic_img_size and hasattr(model.rope, "feat_shape")
    rotations = model.rope.get_embed() if known else model.rope.get_embed(shape=model.patch_embed.grid_size)
    if place is not None:
        rotations = with_identities(rotations, place.padding.shape[-1] - place.own)
    return _rotated(model, rotations, padding)


def _rotated(model: Any, rotations: Tensor | None, padding: Tensor | None) -> Calls:
    if rotations is None or not model.rope_mixed:
        return _calls(model, rope=rotations, attn_mask=padding)
    depth = len(model.blocks)
    return tuple(Call((), {"rope": own, "attn_mask": padding}) for own in rotations[:depth])


def with_identities(rotations: Tensor, others: int) -> Tensor:
    """Return rotations [..., N, 2 * d], sines then cosines, followed by so many that leave a token as it is."""
    sines, cosines = rotations.new_zeros(rotations[..., :1, :].shape).chunk(2, dim=-1)
    identity = torch.cat([sines, cosines + 1], dim=-1).expand(*rotations.shape[:-2], others, -1)
    return torch.cat([rotations, identity], dim=-2)


def _positions_of_beit(model: Any) -> Positions:
    within = any(block.attn.relative_position_bias_table is not None for block in model.blocks)
    return "relative" if within or model.rel_pos_bias is not None else _absolute(model)


def _embed_beit(model: Any, pixels: Tensor) -> State:
    patches = model.patch_embed(pixels)
    tokens = torch.cat((model.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)
    if model.pos_embed is not None:
        tokens = tokens + model.pos_embed
    return model.pos_drop(tokens), _join_beit(model, None)


def _join_beit(model: Any, place: Place | None) -> Calls:
    shared = None if model.rel_pos_bias is None else model.rel_pos_bias()
    return _calls(model, shared_rel_pos_bias=shared if place is None else Place(place.own, place.padding, shared))
