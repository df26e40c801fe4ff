"""The one-tower model: one stack of blocks for the tokens of both modalities.

Letters: V distinct images, T distinct texts, P pairs, N and L tokens, D the base's width, W the pooled width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from renaissance.api import Features, Joint, Modality, ModelFacts, Output, TextInput, VisionInput
from renaissance.models.embeddings import OtherEmbeddings
from renaissance.models.slots import slot_types, zero_types
from renaissance.toolkit.attention import initialise
from renaissance.toolkit.pooling import masked_mean

Pooling = Literal["first", "mean", "both"]
TYPES: dict[Modality, int] = {"text": 0, "vision": 1}


class OneTower(nn.Module):
    """A base with its own embeddings, positions, blocks and final norm; only what it lacks is added.

    What is added starts at zero where the base's own tokens meet it: on its own modality alone the model gives what
    the base gives.
    """

    # A JointBackbone is a protocol and an nn.Module at once, which no type of Python can say.
    base: Any

    def __init__(
        self,
        base: nn.Module,
        other: OtherEmbeddings,
        modality: Modality,
        *,
        pooling: Pooling,
        slots: int = 1,
        masked: bool = True,
    ) -> None:
        """Join a base and the embeddings that it lacks; without `masked` (a published fault) padding is attended to."""
        super().__init__()
        self.masked = masked
        self.base = base
        self.other = other
        self.modality = modality
        self.pooling = pooling
        self.types = zero_types(2, self.base.width)
        self.slots = slot_types(slots, self.base.width)
        self.width: int = self.base.width * (2 if pooling == "both" else 1)
        self.pooler = nn.Linear(self.width, self.width)
        initialise(self.pooler)

    @property
    def encoder(self) -> Any:
        """The base, as rules call it."""
        return self.base

    @property
    def vision(self) -> Any:
        """What embeds images, and holds their processor."""
        return self.base if self.modality == "vision" else self.other

    @property
    def text(self) -> Any:
        """What embeds texts, and holds their tokenizer."""
        return self.base if self.modality == "text" else self.other

    def set_slots(self, slots: int) -> None:
        """Tell `slots` images of an item apart from now on; what was learned of those that stay is kept."""
        self.slots = slot_types(slots, self.base.width, self.slots)

    def encode_vision(self, images: VisionInput) -> Features:
        """Embed distinct images: tokens [V, N, D] before the first block."""
        return self._typed(self.vision.embedded(images), "vision")

    def encode_text(self, texts: TextInput) -> Features:
        """Embed distinct texts: tokens [T, L, D] before the first block."""
        return self._typed(self.text.embedded(texts), "text")

    def fuse(self, vision: Features, text: Features, outputs: frozenset[Output], slots: Tensor | None = None) -> Joint:
        """Run the blocks on pair i of image tokens [P, N, D] and text tokens [P, L, D]; pooled is [P, W].

        slots int64 [P]: which image of its item each is; None: the first.
        """
        if self.slots is not None:
            types = self.slots.weight[:1] if slots is None else self.slots(slots)  # [1 or P, D]
            vision = replace(vision, tokens=vision.tokens + types.unsqueeze(1))
        fused_vision, fused_text = self._run(vision, text)
        assert fused_vision is not None
        assert fused_text is not None
        pooled = None
        if "pooled" in outputs:
            pooled = torch.tanh(self.pooler(self._pool(fused_vision, fused_text)))
        return Joint(fused_vision if "vision" in outputs else None, fused_text if "text" in outputs else None, pooled)

    def represent(self, features: Features, modality: Modality) -> Tensor:
        """Run the blocks on one modality alone; return one vector [B, W] for each input."""
        if modality == "vision":
            return self._pool(self._run(features, None)[0], None)
        return self._pool(None, self._run(None, features)[1])

    def facts(self) -> ModelFacts:
        """Return what tasks must know of this model."""
        return ModelFacts(
            vision=self.width,
            text=self.width,
            joint=self.width,
            fused_text=self.base.width,
            shared_space=False,
            tokenizer=self.text.processor.facts,
        )

    def _typed(self, features: Features, modality: Modality) -> Features:
        return replace(features, tokens=features.tokens + self.types.weight[TYPES[modality]])

    def _run(self, vision: Features | None, text: Features | None) -> tuple[Features | None, Features | None]:
        """Run the blocks on images, texts or both; return the two streams."""
        own, other = (vision, text) if self.modality == "vision" else (text, vision)
        state = self.base.join(self._attended(own), self._attended(other))
        for index in range(len(self.base.blocks)):
            state = self.base.step(index, state)
        tokens = self.base.finish(state).tokens  # [P, own + other, D]
        count = 0 if own is None else own.tokens.shape[1]
        streams = (
            None if own is None else Features(tokens[:, :count], own.mask),
            None if other is None else Features(tokens[:, count:], other.mask),
        )
        return streams if self.modality == "vision" else (streams[1], streams[0])

    def _attended(self, stream: Features | None) -> Features | None:
        if stream is None or self.masked:
            return stream
        return replace(stream, mask=torch.ones_like(stream.mask))

    def _pool(self, vision: Features | None, text: Features | None) -> Tensor:
        parts = {"first": (self._first,), "mean": (_mean,), "both": (self._first, _mean)}[self.pooling]
        return torch.cat([part(vision, text) for part in parts], dim=-1)

    def _first(self, vision: Features | None, text: Features | None) -> Tensor:
        """Return the text's first token, as ViLT does; without a text the image's class token, or its mean."""
        if text is not None:
            return text.tokens[:, 0]
        assert vision is not None
        return vision.tokens[:, 0] if self.vision.class_token else masked_mean(vision.tokens, vision.mask)


def _mean(vision: Features | None, text: Features | None) -> Tensor:
    """Return the mean of all real tokens of both streams [P, D]."""
    streams = [stream for stream in (vision, text) if stream is not None]
    tokens, mask = torch.cat([s.tokens for s in streams], 1), torch.cat([s.mask for s in streams], 1)
    return masked_mean(tokens, mask)
