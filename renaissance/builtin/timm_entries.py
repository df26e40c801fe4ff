"""The entry for image models of the timm library: `timm:<model>[@<revision>]`."""

from __future__ import annotations

from pydantic import Field, JsonValue

from renaissance.api import UNKNOWN, BackboneEntry, Capabilities, Options


class TimmOptions(Options):
    """What can be chosen of a timm model."""

    model: str = Field(description="name of the model in timm, with or without the tag of its weights")
    revision: str | None = Field(None, description="branch, tag or commit of its weights on the Hub")
    image_size: int | None = Field(
        None, gt=0, description="side of the square images in pixels; position tables of weights are interpolated to it"
    )
    layers: int | None = Field(None, gt=0, description="keep the first n blocks (ViT-like models)")
    drop_rate: float | None = Field(None, ge=0, lt=1, description="dropout after each projection of a block")
    drop_path_rate: float | None = Field(None, ge=0, lt=1, description="stochastic depth; the model's own if not given")
    overrides: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="arguments of the timm model itself (embed_dim, depth ..), random weights only",
    )


def describe(options: TimmOptions) -> Capabilities:
    """Return what is known of a timm model before it is built: little, as timm must not be imported for it."""
    return Capabilities(
        depth=UNKNOWN if options.layers is None else options.layers,
        image_size=UNKNOWN if options.image_size is None else options.image_size,
        patch_size=UNKNOWN,
        any_resolution=UNKNOWN,
        grid=UNKNOWN,
        size_step=UNKNOWN,
        pretrained=False if options.overrides else UNKNOWN,
    )


BACKBONES = (
    BackboneEntry(
        name="timm",
        summary="Any image model of the timm library with a feature map or tokens.",
        factory="renaissance.builtin.timm_vision:build",
        options=TimmOptions,
        tiny={"model": "test_vit", "image_size": 32},
        modality="vision",
        describe=describe,
        library=True,
    ),
)
