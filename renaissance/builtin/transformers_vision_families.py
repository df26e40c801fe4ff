"""Where each family of `transformers` vision encoders keeps its parts, and how it is read out.

Letters in shapes: V images, N tokens (prefix tokens first, then the grid row by row), D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

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


def first_then_norm(final: Sequence[nn.Module], hidden: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the tokens [V, N, D] as CLIP does, without a norm, and the first of them normed [V, D]."""
    return hidden, final[0](hidden[:, 0])


def patches_then_norm(final: Sequence[nn.Module], hidden: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the tokens [V, N, D] as a mean-pooled BEiT does, without a norm, and the normed mean of its patches.

    real bool [V, N]: the mean is over these instead.
    """
    pooler: Any = final[0]
    return hidden, pooler(hidden) if real is None else pooler.layernorm(masked_mean(hidden, real))


@dataclass(frozen=True, slots=True)
class Family:
    """Where a model type keeps its parts, and how it is read out.

    prefix: tokens before the grid. told_size: its blocks are told the size of the image.
    """

    blocks: str | None = "encoder.layers"
    embeddings: tuple[str, ...] = ("embeddings",)
    final: tuple[str, ...] = ("post_layernorm",)
    prefix: int = 1
    class_token: bool = True
    read: Readout = norm_then_first
    positions: Positions = "absolute"
    told_size: bool = False


VIT = Family(blocks="layers", final=("layernorm",))
DINOV2 = Family(blocks="encoder.layer", final=("layernorm",))
BEIT = Family(blocks="layers", embeddings=("embeddings", "shared_position_bias"), final=("layernorm",), told_size=True)
BEIT_MEAN = replace(BEIT, final=("pooler",), class_token=False, read=patches_then_norm)


def beit_family(config: Any) -> Family:
    """Return where this BEiT keeps its parts."""
    family = BEIT_MEAN if config.use_mean_pooling else BEIT
    if config.use_relative_position_bias or config.use_shared_relative_position_bias:
        return replace(family, positions="relative")
    return replace(family, positions="absolute" if config.use_absolute_position_embeddings else "none")


FAMILIES: Mapping[str, Callable[[Any], Family]] = {
    "vit": lambda config: VIT,
    "deit": lambda config: Family(blocks="layers", final=("layernorm",), prefix=2),
    "dinov2": lambda config: DINOV2,
    "dinov2_with_registers": lambda config: Family(
        blocks="encoder.layer", final=("layernorm",), prefix=1 + config.num_register_tokens
    ),
    "beit": beit_family,
    "swin": lambda config: Family(blocks=None, prefix=0, class_token=False),
    "siglip_vision_model": lambda config: Family(prefix=0, class_token=False, read=norm_then_mean),
    "clip_vision_model": lambda config: Family(embeddings=("embeddings", "pre_layrnorm"), read=first_then_norm),
}
