"""A tower as a plain model of timm, for use without renaissance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from renaissance.builtin.timm_entries import TimmOptions
from renaissance.builtin.timm_library import create_random
from renaissance.errors import CapabilityError


def plain_timm(model: nn.Module, facts: Mapping[str, Any], image_size: tuple[int, int]) -> nn.Module:
    """Return a new model as timm creates it, without a classifier, with the weights of `model`.

    facts: what the tower is saved with. A norm that stands behind timm's pooling goes back there.

    Raises:
        CapabilityError: only the embeddings were kept, or parts were put in that timm does not know.
    """
    options = TimmOptions.model_validate(facts["options"])
    if facts.get("embeddings_only", False):
        raise CapabilityError(
            f"Only the embeddings of timm:{options.model} were kept, which are no model of timm. Save the whole model, "
            "and load it as it is."
        )
    side = image_size[0] if image_size[0] == image_size[1] else image_size
    with torch.random.fork_rng(devices=[]):
        plain = create_random(options.model, options, side)
    if options.layers is not None:
        plain.blocks = plain.blocks[: options.layers]
    state, whole = dict(model.state_dict()), plain.state_dict()
    if any(name.startswith("fc_norm.") for name in whole) and "norm.weight" not in whole:
        state = {f"fc_{name}" if name.startswith("norm.") else name: tensor for name, tensor in state.items()}
    unknown = sorted(set(state) - set(whole))
    if unknown:
        raise CapabilityError(
            f"'{unknown[0]}' is no part of timm:{options.model}. If these are LoRA adapters, call "
            "model.merge_adapters() first."
        )
    plain.load_state_dict({**whole, **state}, strict=True)
    return cast(nn.Module, plain)
