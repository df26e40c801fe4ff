"""The two-tower model: a vision tower, a text tower, and a head that fuses their streams.

Letters: V distinct images, T distinct texts, P pairs, N and L tokens, D widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.api import (
    Features,
    FusionHeadEntry,
    Joint,
    Modality,
    ModelFacts,
    Output,
    TextInput,
    TowerFacts,
    TowerNeeds,
    VisionInput,
)
from renaissance.models.as_published import published_text
from renaissance.models.slots import slot_types
from renaissance.spec import AsPublished
from renaissance.toolkit.canonical import encode_canonical
from renaissance.toolkit.pooling import one_vector


class TwoTower(nn.Module):
    """The few steps that every task works with: encode each modality, fuse pairs, represent one modality."""

    # A Backbone is a protocol and an nn.Module at once, which no type of Python can say.
    vision: Any
    text: Any
    fusion: Any

    def __init__(
        self,
        vision: nn.Module,
        text: nn.Module,
        fusion: nn.Module,
        entry: FusionHeadEntry,
        slots: int = 1,
        needs: TowerNeeds | None = None,
        faults: AsPublished | None = None,
    ) -> None:
        super().__init__()
        self.faults = faults or AsPublished()
        self.needs = needs or TowerNeeds()
        self.vision = vision
        self.text = text
        self.fusion = fusion
        self.outputs, self.shared_space = entry.outputs, entry.shared_space
        self.slots = slot_types(slots, tower_facts(vision).width)

    def set_slots(self, slots: int) -> None:
        """Tell `slots` images of an item apart from now on; what was learned of those that stay is kept."""
        self.slots = slot_types(slots, tower_facts(self.vision).width, self.slots)

    def encode_vision(self, images: VisionInput) -> Features:
        """Encode distinct images; a frozen tower runs in canonical shapes, without a graph."""
        return _encode(self.vision, images, range(-self.needs.layers, 0))

    def encode_text(self, texts: TextInput) -> Features:
        """Encode distinct texts; a frozen tower runs in canonical shapes, without a graph."""
        given = published_text(self.text, texts, self.faults) if self.faults.any else texts
        features = _encode(self.text, given, range(-self.needs.layers, 0))
        if self.faults.no_padding_mask:
            features = replace(features, mask=texts.mask)
        if not self.needs.embedded:
            return features
        with torch.no_grad() if holds_still(self.text) else nullcontext():
            embedded = self.text.embedded(texts).tokens  # [T, L, D]
        return replace(features, embedded=embedded[:, : features.tokens.shape[1]])

    def fuse(self, vision: Features, text: Features, outputs: frozenset[Output], slots: Tensor | None = None) -> Joint:
        """Fuse pair i of vision [P, N, D] and text [P, L, D].

        slots int64 [P]: which image of its item each is; None: the first.
        """
        if self.slots is not None:
            types = self.slots.weight[:1] if slots is None else self.slots(slots)  # [1 or P, D]
            vision = replace(vision, tokens=vision.tokens + types.unsqueeze(1))
        joint: Joint = self.fusion(vision, text, outputs)
        return joint

    def represent(self, features: Features, modality: Modality) -> Tensor:
        """Return one vector [B, D] for each input: the tower's pooled one, in the shared space if there is one."""
        vector = one_vector(features)
        shared: Tensor = self.fusion.project(vector, modality) if self.shared_space else vector
        return shared

    def facts(self) -> ModelFacts:
        """Return what tasks must know of this model."""
        vision, text, fusion = tower_facts(self.vision), tower_facts(self.text), self.fusion
        fused = bool(self.outputs)
        return ModelFacts(
            vision=fusion.width if self.shared_space else vision.width,
            text=fusion.width if self.shared_space else text.width,
            joint=fusion.pooled_width if "pooled" in self.outputs else None,
            fused_text=fusion.width if fused else None,
            shared_space=self.shared_space,
            tokenizer=self.text.processor.facts,
            vision_tokens=vision.width,
        )


def tower_facts(tower: Any) -> TowerFacts:
    """Return what a fusion head must know of a tower."""
    return TowerFacts(width=tower.width, class_token=tower.class_token)


def holds_still(tower: nn.Module) -> bool:
    """Return whether no parameter of a tower is trained."""
    return not any(parameter.requires_grad for parameter in tower.parameters())


def _encode(tower: Any, inputs: Any, layers: Sequence[int]) -> Features:
    frozen = holds_still(tower)
    with torch.no_grad() if frozen else nullcontext():
        features: Features = encode_canonical(tower, inputs, layers) if frozen else tower(inputs, layers)
    return features
