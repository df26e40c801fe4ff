"""What vision backbones share as the base of one-tower models: sequences of own tokens followed by others.

Letters in shapes: B inputs, N own tokens, M others, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from renaissance.api import Features
from renaissance.errors import SpecError
from renaissance.toolkit.layered import LayerState


@dataclass(frozen=True, slots=True)
class JointState(LayerState):
    """The state of a sequence that others are part of; `own` counts the own tokens at its start."""

    own: int


def joined(own: Features | None, other: Features | None) -> tuple[Tensor, Tensor]:
    """Return own tokens followed by others [B, N + M, D], and their mask bool [B, N + M].

    Raises:
        SpecError: there is neither.
    """
    present = [features for features in (own, other) if features is not None]
    if not present:
        raise SpecError("Neither images nor texts were given to encode. Give one of them, or both.")
    return torch.cat([part.tokens for part in present], dim=1), torch.cat([part.mask for part in present], dim=1)


def padding_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what to add to attention scores [B, 1, 1, N]: 0 for real tokens, the lowest number for padding.

    Not minus infinity: a row without any real token would become NaN.
    """
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None]


def mean_mask(state: LayerState, prefix: int) -> Tensor | None:
    """Return which tokens a mean is over, bool [B, N + M]: real ones after the image's `prefix`; None: no padding."""
    if not isinstance(state, JointState):
        return None
    special = torch.arange(state.mask.shape[1], device=state.mask.device) < min(prefix, state.own)
    return state.mask & ~special


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that is saved, by its name."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def changed_shapes(before: dict[str, tuple[int, ...]], module: nn.Module) -> tuple[str, ...]:
    """Return the names of the tensors whose shape is no longer that of `before`."""
    return tuple(name for name, shape in shapes(module).items() if before.get(name) != shape)


def resized_facts(before: dict[str, tuple[int, ...]], model: nn.Module, place: str) -> dict[str, list[str]]:
    """Return, under `resized`, the names of the parameters of `model` at `place` whose shape is not that of `before`.

    There is no such key where all are as they were.
    """
    parameters = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    names = [f"{place}.{name}" for name, shape in parameters.items() if before.get(name, shape) != shape]
    return {"resized": names} if names else {}


def check_side(name: str, size: int, step: int) -> None:
    """Check that tokens of `step` pixels a side fill an image of `size`.

    Raises:
        SpecError: they do not.
    """
    if size < step or size % step:
        raise SpecError(
            f"{name}: image_size={size} is no multiple of {step}, the side of a token in pixels. "
            f"Use image_size={max(step, round(size / step) * step)}."
        )


def all_real(tokens: Tensor) -> Tensor:
    """Return the mask bool [B, N] of tokens [B, N, D] without padding."""
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
