"""The two-tower model: a vision tower, a text tower, and a head that fuses their streams.

Letters: V distinct images, T distinct texts, P pairs, N and L tokens, D widths.
"""

from __future__ import annotations

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
    Prefix,
    TextInput,
    TowerFacts,
    TowerNeeds,
    VisionInput,
)
from renaissance.models.as_published import published_text
from renaissance.models.slots import slot_types
from renaissance.spec import AsPublished
from renaissance.toolkit.canonical import encode_canonical, prefix_canonical
from renaissance.toolkit.pooling import one_vector
from renaissance.toolkit.resuming import begun, blank_images, finished, frozen_blocks, goes_on


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
        self._goes_on: dict[Modality, bool] = {}

    def set_slots(self, slots: int) -> None:
        """Tell `slots` images of an item apart from now on; what was learned of those that stay is kept."""
        self.slots = slot_types(slots, tower_facts(self.vision).width, self.slots)

    def encode_vision(self, images: VisionInput | None, stored: Features | Prefix | None = None) -> Features:
        """Encode distinct images; what is frozen from the beginning on runs in canonical shapes, without a graph.

        stored: what a store gave of them; the images are then not needed.
        """
        if images is None:
            assert stored is not None, "images, or what was stored of them"
            images = blank_images(self.vision, len(stored.tokens))
        return self._encode("vision", images, stored)

    def encode_text(
        self, texts: TextInput, stored: Features | Prefix | None = None, *, changed: bool = False
    ) -> Features:
        """Encode distinct texts; what is frozen from the beginning on runs in canonical shapes, without a graph.

        stored: what a store gave of them. changed: a task has changed them, as by masking, so that no store holds them;
        they run in one call of their own length, which takes fewer tokens.
        """
        given = published_text(self.text, texts, self.faults) if self.faults.any else texts
        features = self._encode("text", given, stored, as_given=changed)
        if self.faults.no_padding_mask:
            features = replace(features, mask=texts.mask)
        if not self.needs.embedded:
            return features
        with torch.no_grad() if holds_still(self.text) else nullcontext():
            embedded = self.text.embedded(texts).tokens  # [T, L, D]
        return replace(features, embedded=embedded[:, : features.tokens.shape[1]])

    def prefix(self, modality: Modality) -> int | None:
        """Return how many first blocks of a tower run apart, as they are frozen; None: all of it is frozen."""
        tower = getattr(self, modality)
        return None if holds_still(tower) else self.resumable(modality, frozen_blocks(tower))

    def resumable(self, modality: Modality, depth: int) -> int:
        """Return after how many first blocks a tower goes on of which `depth` are frozen: all of them, or 0.

        0: it cannot go on after them, or the fusion head reads what is inside of them.
        """
        tower = getattr(self, modality)
        if not depth or self.needs.layers > len(tower.blocks) - depth + 1:
            return 0
        if modality not in self._goes_on:
            self._goes_on[modality] = goes_on(tower)
        return depth if self._goes_on[modality] else 0

    def _encode(
        self, modality: Modality, inputs: Any, stored: Features | Prefix | None, *, as_given: bool = False
    ) -> Features:
        """Encode inputs, or go on from what was stored of them; as_given: not in canonical shapes."""
        tower, layers = getattr(self, modality), range(-self.needs.layers, 0)
        if isinstance(stored, Features):
            return _cast(stored, next(tower.parameters()).dtype)
        if stored is not None:
            stored = replace(stored, tokens=stored.tokens.to(next(tower.parameters()).dtype))
        depth = 0 if as_given else self.prefix(modality)
        if depth is None:
            return encode_canonical(tower, inputs, layers, stored)
        if depth == 0:
            features: Features = tower(inputs, layers)
            return features
        prefix = stored if stored and stored.depth >= depth else prefix_canonical(tower, inputs, depth, stored)
        return finished(tower, begun(tower, inputs, prefix), prefix.depth, layers)

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


def _cast(features: Features, dtype: torch.dtype) -> Features:
    """Return what was stored in fewer bits in the dtype of the tower."""
    return replace(
        features,
        tokens=features.tokens.to(dtype),
        pooled=None if features.pooled is None else features.pooled.to(dtype),
        layers=tuple(layer.to(dtype) for layer in features.layers),
    )


def holds_still(tower: nn.Module) -> bool:
    """Return whether no parameter of a tower is trained."""
    return not any(parameter.requires_grad for parameter in tower.parameters())
