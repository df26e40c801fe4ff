"""The built-in fusion heads, described."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from renaissance.api import FusionHeadEntry, Options
from renaissance.errors import SpecError

Count = Annotated[int, Field(ge=1, le=65_536)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class CrossOptions(Options):
    """Options of heads made of layers with cross attention."""

    layers: Annotated[int, Field(ge=1, le=1024)] = Field(6, description="Fusion layers.")
    width: Count = Field(256, description="Width of both fused streams.")
    heads: Count = Field(4, description="Attention heads; they divide the width.")
    mlp_ratio: Annotated[float, Field(gt=0.0, le=64.0)] = Field(
        4.0, description="Hidden width of the MLP over the width."
    )
    dropout: Rate = Field(0.1, description="Dropout of each sub-layer's output, in training.")


class DualOptions(Options):
    """Options of the projections to a shared space."""

    width: Count = Field(256, description="Width of the shared space.")


def check_heads(options: CrossOptions) -> None:
    """Refuse a width that the heads do not divide.

    Raises:
        SpecError: naming the nearest number of heads that does.
    """
    if options.width % options.heads:
        nearest = min(
            (h for h in range(1, options.width + 1) if options.width % h == 0), key=lambda h: abs(h - options.heads)
        )
        raise SpecError(
            f"{options.heads} heads do not divide a width of {options.width}; the nearest number is {nearest}."
        )


FUSION_HEADS = (
    FusionHeadEntry(
        name="lxmert",
        summary="Cross-modality layers of LXMERT (arXiv 1908.07490): both streams attend to each other, weights shared",
        factory="renaissance.builtin.fusion:lxmert",
        options=CrossOptions,
        tiny={"layers": 2, "width": 32, "heads": 2},
        check=check_heads,
    ),
    FusionHeadEntry(
        name="co-attention",
        summary="Co-attention of METER (arXiv 2111.02387): each stream has its own self and cross attention",
        factory="renaissance.builtin.fusion:co_attention",
        options=CrossOptions,
        tiny={"layers": 2, "width": 32, "heads": 2},
        check=check_heads,
    ),
    FusionHeadEntry(
        name="dual",
        summary="No fusion: projections to a shared space, for contrastive training and retrieval (CLIP, LiT)",
        factory="renaissance.builtin.fusion:dual",
        options=DualOptions,
        tiny={"width": 32},
        outputs=frozenset(),
        shared_space=True,
    ),
)
