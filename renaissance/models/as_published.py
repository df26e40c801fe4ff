"""Faults of the published code (arXiv 2411.06657), so that studies can say what each of them does. Off by default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from renaissance.api import TextInput
from renaissance.errors import SpecError
from renaissance.spec import AsPublished


def published_text(tower: Any, texts: TextInput, faults: AsPublished) -> TextInput:
    """Return what the published code gives a text tower in place of these texts.

    Raises:
        SpecError: the tower has no embedding block that can be run alone.
    """
    if faults.ids_embedded_twice:
        model = getattr(tower, "model", None)
        block = getattr(model, "embeddings", None)
        if block is None:
            raise SpecError("'ids_embedded_twice' needs a text tower of 'transformers' with an embedding block.")
        # [T, L, E]: words, positions and norm, which the tower then adds a second time
        texts = replace(texts, embeddings=block(input_ids=texts.token_ids))
    if faults.no_padding_mask:
        texts = replace(texts, mask=torch.ones_like(texts.mask))
    return texts


@torch.no_grad()
def renew(modules: Iterable[nn.Module]) -> None:
    """Give parts of a base new weights: norms that change nothing, and else a deviation of 0.02."""
    for module in modules:
        for part in module.modules():
            norm = isinstance(part, nn.LayerNorm)
            for name, parameter in part.named_parameters(recurse=False):
                if norm:
                    parameter.fill_(1.0 if name == "weight" else 0.0)
                elif name.endswith("bias"):
                    parameter.zero_()
                else:
                    parameter.normal_(std=0.02)
