"""Gated streams. Letters: P pairs, N vision tokens, L text tokens, W the fusion's width."""

from __future__ import annotations

from torch import nn

from renaissance.api import Features, Joint, Output, TowerFacts
from renaissance.toolkit.pooling import masked_mean
from renaissance_plugin_example import GatedOptions


class GatedStreams(nn.Module):
    """Both streams in one width, each channel scaled by what the other modality says as a whole."""

    def __init__(self, width: int, vision: TowerFacts, text: TowerFacts) -> None:
        super().__init__()
        self.width = self.pooled_width = width
        self.vision_projection = nn.Linear(vision.width, width)
        self.text_projection = nn.Linear(text.width, width)
        self.vision_gate = nn.Linear(width, width)
        self.text_gate = nn.Linear(width, width)

    def forward(self, vision: Features, text: Features, outputs: frozenset[Output]) -> Joint:
        """Fuse pair i of vision [P, N, Dv] and text [P, L, Dt]; return what `outputs` names, pooled as [P, W]."""
        v, t = self.vision_projection(vision.tokens), self.text_projection(text.tokens)  # [P, N, W], [P, L, W]
        seen, said = masked_mean(v, vision.mask), masked_mean(t, text.mask)  # [P, W]
        v = v * self.vision_gate(said).sigmoid().unsqueeze(1)
        t = t * self.text_gate(seen).sigmoid().unsqueeze(1)
        return Joint(
            Features(v, vision.mask) if "vision" in outputs else None,
            Features(t, text.mask) if "text" in outputs else None,
            masked_mean(v, vision.mask) * masked_mean(t, text.mask) if "pooled" in outputs else None,
        )


def build(options: GatedOptions, *, vision: TowerFacts, text: TowerFacts) -> GatedStreams:
    """Build the head for two towers."""
    return GatedStreams(options.width, vision, text)
