"""The entries for both towers of open_clip models: `open-clip:<model>[@<tag of its weights>]`."""

from __future__ import annotations

from pydantic import Field, JsonValue

from renaissance.api import UNKNOWN, BackboneEntry, Capabilities, Options


class OpenClipVisionOptions(Options):
    """What can be chosen of the vision tower of an open_clip model."""

    model: str = Field(description="name of the model in open_clip")
    revision: str | None = Field(None, description="tag of its pretrained weights, such as laion2b_s34b_b79k")
    image_size: int | None = Field(
        None, gt=0, description="side of the square images in pixels; position tables of weights are interpolated to it"
    )
    layers: int | None = Field(None, gt=0, description="keep the first n blocks (transformers)")
    overrides: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="fields of its vision_cfg (width, layers, heads, patch_size ..) and embed_dim; random weights only",
    )


class OpenClipTextOptions(Options):
    """What can be chosen of the text tower of an open_clip model."""

    model: str = Field(description="name of the model in open_clip")
    revision: str | None = Field(None, description="tag of its pretrained weights, such as laion2b_s34b_b79k")
    layers: int | None = Field(None, gt=0, description="keep the first n blocks")
    overrides: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="fields of its text_cfg (width, layers, context_length ..) and embed_dim; random weights only",
    )


def describe_vision(options: OpenClipVisionOptions) -> Capabilities:
    """Return what is known of a vision tower before it is built: little, as open_clip must not be imported for it."""
    return Capabilities(
        depth=UNKNOWN if options.layers is None else options.layers,
        image_size=UNKNOWN if options.image_size is None else options.image_size,
        patch_size=UNKNOWN,
        any_resolution=UNKNOWN,
        grid=UNKNOWN,
        pretrained=options.revision is not None and not options.overrides,
    )


def describe_text(options: OpenClipTextOptions) -> Capabilities:
    """Return what is known of a text tower before it is built: little, as open_clip must not be imported for it."""
    return Capabilities(
        depth=UNKNOWN if options.layers is None else options.layers,
        layered=True,
        class_token=False,
        max_tokens=UNKNOWN,
        vocabulary=UNKNOWN,
        pretrained=options.revision is not None and not options.overrides,
    )


BACKBONES = (
    BackboneEntry(
        name="open-clip",
        summary="The vision tower of any open_clip model.",
        factory="renaissance.builtin.open_clip_vision:build",
        options=OpenClipVisionOptions,
        tiny={
            "model": "ViT-B-32",
            "image_size": 32,
            "overrides": {"width": 32, "layers": 2, "heads": 2, "patch_size": 16, "embed_dim": 32},
        },
        modality="vision",
        describe=describe_vision,
        library=True,
    ),
    BackboneEntry(
        name="open-clip",
        summary="The text tower of any open_clip model.",
        factory="renaissance.builtin.open_clip_text:build",
        options=OpenClipTextOptions,
        tiny={"model": "ViT-B-32", "overrides": {"width": 32, "layers": 2, "heads": 2, "embed_dim": 32}},
        modality="text",
        describe=describe_text,
        library=True,
    ),
)
