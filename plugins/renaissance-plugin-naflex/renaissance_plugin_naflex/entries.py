"""What the towers are. Imports no torch."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from renaissance.api import UNKNOWN, BackboneEntry, Capabilities, Options

Count = Annotated[int, Field(ge=1, le=65_536)]
REFUSED = (
    "its images have grids of several sizes, which the positions of a one-tower model cannot follow. Use a base such "
    "as 'vit-base'"
)


class BaseOptions(Options):
    """Options of SigLIP 2 NaFlex, base size."""

    max_patches: Annotated[int, Field(ge=1, le=4096)] = Field(
        256, description="Patches that an image may have; it is resized to come as near as its proportions allow."
    )
    layers: Annotated[int, Field(ge=1, le=1024)] = Field(12, description="Keep the first n blocks.")
    repository: str = Field(
        "google/siglip2-base-patch16-naflex", description="Where pretrained weights are: on the Hub, or in a folder."
    )
    revision: str | None = Field(None, description="Commit, tag or branch of that repository.")
    width: Count = Field(768, description="Width of the tokens.")
    heads: Count = Field(12, description="Attention heads of a block.")
    mlp_width: Count = Field(3072, description="Hidden width of a block's MLP.")
    patch_size: Annotated[int, Field(ge=1, le=512)] = Field(16, description="Side of a patch in pixels.")
    positions: Annotated[int, Field(ge=1, le=256)] = Field(
        16, description="Side of the square of learned positions, which is resized to the grid of each image."
    )


class So400mOptions(BaseOptions):
    """Options of SigLIP 2 NaFlex, shape-optimised 400M."""

    layers: Annotated[int, Field(ge=1, le=1024)] = Field(27, description="Keep the first n blocks.")
    repository: str = Field(
        "google/siglip2-so400m-patch16-naflex", description="Where pretrained weights are: on the Hub, or in a folder."
    )
    width: Count = Field(1152, description="Width of the tokens.")
    heads: Count = Field(16, description="Attention heads of a block.")
    mlp_width: Count = Field(4304, description="Hidden width of a block's MLP.")


def describe(options: BaseOptions) -> Capabilities:
    """Return what is known of a tower before it is built; the image size is that of a square picture."""
    side = math.isqrt(options.max_patches)
    return Capabilities(
        width=options.width,
        depth=options.layers,
        layered=True,
        class_token=False,
        image_size=side * options.patch_size,
        patch_size=options.patch_size,
        any_resolution=True,
        grid=(side, side) if side * side == options.max_patches else UNKNOWN,
        pretrained=True,
        trained_on=("WebLI",),
        positions="absolute",
        base=False,
        refused=REFUSED,
        size_step=options.patch_size,
    )


def _entry(name: str, summary: str, options: type[BaseOptions]) -> BackboneEntry:
    return BackboneEntry(
        name=name,
        summary=f"{summary}, with the proportions of each picture (SigLIP 2 NaFlex, arXiv 2502.14786)",
        factory="renaissance_plugin_naflex.tower:build",
        options=options,
        tiny={
            "max_patches": 16,
            "layers": 2,
            "width": 32,
            "heads": 2,
            "mlp_width": 64,
            "patch_size": 8,
            "positions": 4,
        },
        modality="vision",
        describe=describe,
    )


BASE = _entry("siglip2-base", "ViT-B/16, 93M parameters", BaseOptions)
SO400M = _entry("siglip2-so400m", "ViT-So400m/16, 428M parameters", So400mOptions)
