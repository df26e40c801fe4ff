"""Where each family of layered `transformers` vision encoders keeps its parts, and how it is read out.

Letters in shapes: V images, N tokens (prefix tokens first, then the grid row by row), D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.api import Positions
from renaissance.toolkit.pooling import masked_mean

Readout = Callable[[Sequence[nn.Module], Tensor, Tensor | None], tuple[Tensor, Tensor]]


def norm_then_first(final: Sequence[nn.Module], hidden: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return normed tokens [V, N, D], and the first of them [V, D]."""
    tokens = final[0](hidden)
    return tokens, tokens[:, 0]


def norm_then_mean(final: Sequence[nn.Module], hidden: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return normed tokens [V, N, D], and their mean [V, D] over those that are `real`, bool [V, N] (None: all)."""
    tokens = final[0](hidden)
    return tokens, tokens.mean(1) if real is None else masked_mean(tokens, real)


def norm_then_norm_of_mean(final: Sequence[nn.Module], hidden: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return normed tokens [V, N, D], and the normed mean [V, D] of the patches, as a mean-pooled BEiT does.

    real bool [V, N]: the mean is over these instead.
    """
    pooler: Any = final[0]
    return pooler.layernorm(hidden), pooler(hidden) if real is None else pooler.layernorm(masked_mean(hidden, real))


def no_inputs(config: Any, pixels: Tensor) -> dict[str, Tensor]:
    """Return what the model is given beside pixels [V, 3, H, W]: nothing."""
    return {}


def in_order(config: Any, pixels: Tensor) -> dict[str, Tensor]:
    """Return the noise [V, N] by which a masked autoencoder, which would shuffle its patches, leaves them in place."""
    patches = (pixels.shape[-2] // config.patch_size) * (pixels.shape[-1] // config.patch_size)
    return {"noise": torch.arange(patches, device=pixels.device).expand(pixels.shape[0], -1)}


@dataclass(frozen=True, slots=True)
class Family:
    """Where a model type keeps its parts, and how it is read out.

    prefix: tokens before the grid. told_size: its blocks are told the size of the image. inputs: what the model is
    given beside the pixels. pooler: what makes a vector of the normed tokens, where the model has it and it may stay.
    """

    blocks: str = "encoder.layers"
    embeddings: tuple[str, ...] = ("embeddings",)
    final: tuple[str, ...] = ("post_layernorm",)
    prefix: int = 1
    class_token: bool = True
    read: Readout = norm_then_first
    positions: Positions = "absolute"
    told_size: bool = False
    inputs: Callable[[Any, Tensor], dict[str, Tensor]] = no_inputs
    pooler: str | None = None


VIT = Family(blocks="layers", final=("layernorm",), pooler="pooler")
DINOV2 = Family(blocks="encoder.layer", final=("layernorm",))
# METER and BridgeTower, which fuse CLIP's tokens, norm them all; CLIP itself norms the first, the only one it uses
CLIP = Family(embeddings=("embeddings", "pre_layrnorm"))
BEIT = Family(blocks="layers", embeddings=("embeddings", "shared_position_bias"), final=("layernorm",), told_size=True)
BEIT_MEAN = replace(BEIT, final=("pooler",), class_token=False, read=norm_then_norm_of_mean)


def beit_family(config: Any) -> Family:
    """Return where this BEiT keeps its parts."""
    family = BEIT_MEAN if config.use_mean_pooling else BEIT
    if config.use_relative_position_bias or config.use_shared_relative_position_bias:
        return replace(family, positions="relative")
    return replace(family, positions="absolute" if config.use_absolute_position_embeddings else "none")


FAMILIES: Mapping[str, Callable[[Any], Family]] = {
    "vit": lambda config: VIT,
    "deit": lambda config: Family(blocks="layers", final=("layernorm",), prefix=2, pooler="pooler"),
    "dinov2": lambda config: DINOV2,
    "dinov2_with_registers": lambda config: Family(
        blocks="encoder.layer", final=("layernorm",), prefix=1 + config.num_register_tokens
    ),
    "beit": beit_family,
    "dinov3_vit": lambda config: Family(
        blocks="model.layer", final=("norm",), prefix=1 + config.num_register_tokens, positions="rope"
    ),
    "ijepa": lambda config: replace(VIT, prefix=0, class_token=False, read=norm_then_mean, pooler=None),
    "vit_msn": lambda config: replace(VIT, pooler=None),
    "vit_mae": lambda config: replace(VIT, inputs=in_order, pooler=None),
    "siglip_vision_model": lambda config: Family(prefix=0, class_token=False, read=norm_then_mean, pooler="head"),
    "clip_vision_model": lambda config: CLIP,
    "chinese_clip_vision_model": lambda config: CLIP,
}
