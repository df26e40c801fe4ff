"""What the head is. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from renaissance.api import FusionHeadEntry, Options
from renaissance.errors import SpecError

Count = Annotated[int, Field(ge=1, le=65_536)]
Depth = Annotated[int, Field(ge=1, le=1024)]
Activation = Literal["squared-relu", "relu", "gelu"]


class ResamplerOptions(Options):
    """Options of the resampler, and of the layers in which the text reads what it gives."""

    latents: Count = Field(64, description="Learned latents: what the text sees of an image, whatever its size.")
    resampler_layers: Depth = Field(6, description="Layers in which the latents attend to the image and themselves.")
    join: Literal["cross", "merged"] = Field(
        "cross", description="The text attends to the latents, or both attend to both in one stream."
    )
    layers: Depth = Field(6, description="Layers over the text.")
    width: Count = Field(256, description="Width of the latents and of the fused text stream.")
    heads: Count = Field(4, description="Attention heads; they divide the width.")
    mlp_ratio: Annotated[float, Field(gt=0.0, le=64.0)] = Field(4.0, description="Hidden width of the MLPs over width.")
    activation: Activation = Field(
        "squared-relu", description="Of the resampler's MLPs: Flamingo's, or 'relu' as in IDEFICS."
    )
    qk_norm: bool = Field(False, description="LayerNorm of the resampler's queries and keys, head by head (IDEFICS).")
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.1, description="Dropout of each sub-layer's output, in training."
    )
    norm_eps: Annotated[float, Field(gt=0.0, le=0.01)] = Field(1e-5, description="What LayerNorm adds to the variance.")


def check_heads(options: ResamplerOptions) -> None:
    """Refuse a width that the heads do not divide.

    Raises:
        SpecError: naming the nearest number of heads that does.
    """
    if options.width % options.heads:
        divisors = (number for number in range(1, options.width + 1) if options.width % number == 0)
        nearest = min(divisors, key=lambda number: abs(number - options.heads))
        raise SpecError(
            f"resampler:perceiver-resampler: {options.heads} heads do not divide a width of {options.width}; the "
            f"nearest number is {nearest}."
        )


RESAMPLER = FusionHeadEntry(
    name="perceiver-resampler",
    summary="Learned latents read the image (Flamingo, arXiv 2204.14198); the text attends to these few",
    factory="renaissance_plugin_resampler.head:build",
    options=ResamplerOptions,
    tiny={"latents": 4, "resampler_layers": 2, "layers": 2, "width": 32, "heads": 2},
    outputs=frozenset({"text", "pooled"}),
    check=check_heads,
)
