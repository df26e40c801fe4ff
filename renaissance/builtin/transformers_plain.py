"""A tower as a plain model of `transformers`, for use without renaissance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from renaissance.builtin.transformers_loading import initialised
from renaissance.errors import CapabilityError

# where DeBERTa-v2 has the convolution that its tower runs as a part of the first block
_CONVOLUTION = "encoder.conv."


def plain_model(
    model: nn.Module, blocks: Sequence[nn.Module], path: str, config: Mapping[str, Any], **arguments: Any
) -> nn.Module:
    """Return a new model of the library's own class, with the weights of `model` and of its `blocks`, once at `path`.

    config: what the tower is saved with. What was dropped as no token depends on it is as newly initialised.

    Raises:
        CapabilityError: only the embeddings were kept, or parts were put in that the library does not know.
    """
    cls, source = type(model), cast(Any, model)
    if config.get("embeddings_only", False):
        raise CapabilityError(
            f"Only the embeddings of this {cls.__name__} were kept, which are no model of transformers. Save the whole "
            "model, and load it as it is."
        )
    with torch.random.fork_rng(devices=[]):
        plain = initialised(cls, source.config, **arguments)
    state, whole = _state(model, blocks, path), plain.state_dict()
    unknown = sorted(set(state) - set(whole))
    if unknown:
        raise CapabilityError(
            f"'{unknown[0]}' is no part of transformers' {cls.__name__}. If these are LoRA adapters, call "
            "model.merge_adapters() first."
        )
    plain.load_state_dict({**whole, **state}, strict=True)
    return plain


def _state(model: nn.Module, blocks: Sequence[nn.Module], path: str) -> dict[str, Tensor]:
    """Return the tensors of a model by the library's names, the blocks back in their place."""
    state = dict(model.state_dict())
    for index, block in enumerate(blocks):
        for name, tensor in block.state_dict().items():
            if name.startswith("convolution."):
                state[_CONVOLUTION + name.removeprefix("convolution.")] = tensor
            else:
                state[f"{path}.{index}.{name.removeprefix('block.')}"] = tensor
    return state
