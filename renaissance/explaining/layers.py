"""What each layer of a model makes of samples: the mean of its tokens, by the names that freezing uses.

`vision.embeddings`, `vision.0` .. `vision.final`, and so for `text`; `fusion.final` is the fused pair's pooled vector.
A one-tower model has `encoder.embeddings` .. `encoder.final` on pairs; its blocks on one modality alone are `vision.*`
and `text.*`. A tower that lists no blocks has `final` alone.

Letters in shapes: P samples, B of them in a batch, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from renaissance.api import Features, TextInput, VisionInput
from renaissance.assemble import Assembly
from renaissance.explaining.outputs import POOLED
from renaissance.models.one_tower import OneTower
from renaissance.models.parts import EMBEDDINGS, FINAL
from renaissance.models.two_tower import TwoTower
from renaissance.toolkit.pooling import masked_mean, one_vector

BATCH = 64
Layers = dict[str, Tensor]


def layer_features(assembly: Assembly, pictures: Sequence[Any], texts: Sequence[str], *, batch: int = BATCH) -> Layers:
    """Return by layer what it makes of picture i with text i, fp32 [P, D]."""
    found: dict[str, list[Tensor]] = {}
    encoder = assembly.encoder
    with torch.inference_mode():
        for start in range(0, len(texts), batch):
            images = encoder.vision.processor(list(pictures[start : start + batch]))
            words = encoder.text.processor(list(texts[start : start + batch]))
            of_batch = _one_tower if isinstance(encoder, OneTower) else _two_tower
            for name, features in of_batch(encoder, images, words):
                found.setdefault(name, []).append(features)
    return {name: torch.cat(parts) for name, parts in found.items()}


def of_modality(layers: Layers, modality: str) -> Layers:
    """Return those layers that have seen one modality alone."""
    return {name: features for name, features in layers.items() if name.startswith(f"{modality}.")}


def _two_tower(encoder: Any, images: VisionInput, texts: TextInput) -> Iterator[tuple[str, Tensor]]:
    assert isinstance(encoder, TwoTower)
    for name, inputs in (("vision", images), ("text", texts)):
        tower = getattr(encoder, name)
        if not len(tower.blocks):
            yield f"{name}.{FINAL}", _mean(tower(inputs))
            continue
        yield from _folded(name, tower, tower.embed(inputs), inputs.mask if name == "text" else None)
    if "pooled" in encoder.outputs:
        joint = encoder.fuse(encoder.encode_vision(images), encoder.encode_text(texts), POOLED)
        assert joint.pooled is not None
        yield f"fusion.{FINAL}", joint.pooled


def _one_tower(encoder: Any, images: VisionInput, texts: TextInput) -> Iterator[tuple[str, Tensor]]:
    assert isinstance(encoder, OneTower)
    vision, text = encoder.encode_vision(images), encoder.encode_text(texts)
    for name, given in (("vision", (vision, None)), ("text", (None, text)), ("encoder", (vision, text))):
        own, other = given if encoder.modality == "vision" else given[::-1]
        masks = [part.mask for part in (own, other) if part is not None]
        yield from _folded(name, encoder.base, encoder.base.join(own, other), torch.cat(masks, dim=1))


def _folded(name: str, tower: Any, state: Any, mask: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    """Run a tower block by block; padding is left out of every mean. mask: None where the tower's own says it all."""

    def mean(tokens: Tensor, own: Tensor) -> Tensor:
        real = own if mask is None else mask  # stages of a convolutional network leave fewer and fewer tokens
        return masked_mean(tokens[:, : real.shape[1]], real)  # some towers see their own padding behind the text

    yield f"{name}.{EMBEDDINGS}", mean(state.hidden, state.mask)
    for index in range(len(tower.blocks)):
        state = tower.step(index, state)
        yield f"{name}.{index}", mean(state.hidden, state.mask)
    features: Features = tower.finish(state)
    yield f"{name}.{FINAL}", mean(features.tokens, features.mask)


def _mean(features: Features) -> Tensor:
    return one_vector(replace(features, pooled=None))
