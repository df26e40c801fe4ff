"""The entry of the ViT whose blocks are BERT's. Imports no torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from renaissance.api import BackboneEntry, Capabilities, Options

LAYERS, WIDTH, HEADS, MLP_WIDTH = 6, 384, 12, 1536  # those of MiniLM


class PostNormOptions(Options):
    """Options of a ViT with a norm after each sub-layer."""

    weights: str | None = Field(
        None, description="A folder of pretrained weights, as `make vision-base` writes; null: there are none."
    )
    image_size: int = Field(
        96,
        ge=1,
        le=4096,
        description="Height and width of the input in pixels; positions of weights are resized to it.",
    )
    patch_size: int = Field(16, ge=1, le=1024, description="Height and width of a patch in pixels.")
    layers: int = Field(LAYERS, ge=1, le=256, description="How many blocks; of pretrained weights the first ones.")
    width: int = Field(WIDTH, ge=1, le=65_536, description="Channels of a token.")
    heads: int = Field(HEADS, ge=1, le=1024, description="Attention heads of a block.")
    mlp_width: int = Field(MLP_WIDTH, ge=1, le=262_144, description="Hidden channels of a block's MLP.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Probability of dropout in training, on hidden states.")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={self.width}; use a width that is a multiple")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size={self.image_size} is no multiple of patch_size={self.patch_size}")
        return self


def describe(options: PostNormOptions) -> Capabilities:
    """Return what is known of it before it is built."""
    side = options.image_size // options.patch_size
    return Capabilities(
        width=options.width,
        depth=options.layers,
        layered=True,
        class_token=True,
        image_size=options.image_size,
        patch_size=options.patch_size,
        grid=(side, side),
        pretrained=options.weights is not None,
        positions="absolute",
        base=True,
        size_step=options.patch_size if options.patch_size > 1 else None,
    )


BACKBONES = (
    BackboneEntry(
        name="post-norm-vit",
        summary="A ViT of MiniLM's shape and norm placement, for studies; its weights are made by `make vision-base`.",
        factory="renaissance.builtin.post_norm_vit:build",
        options=PostNormOptions,
        tiny={"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "heads": 2, "mlp_width": 64},
        modality="vision",
        describe=describe,
    ),
)
