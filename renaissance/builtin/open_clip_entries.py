"""The entries for both towers of open_clip models: `open-clip:<model>[@<tag of its weights>]`."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, JsonValue

from renaissance.api import UNKNOWN, BackboneEntry, Capabilities, Options, Unknown
from renaissance.builtin.described import TextRow, VisionRow, tags_of, text_facts, text_row, vision_facts, vision_row


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


TEXT_REFUSED = (
    "its tokens attend only to those before them, or to the padding of their text; use its vision tower as the base"
)


def describe_vision(options: OpenClipVisionOptions) -> Capabilities:
    """Return what is known of a vision tower without open_clip: what the table that ships says, at these options.

    Raises:
        SpecError: the tower cannot be a backbone, cannot be cut, or does not take images of that size.
    """
    row = None if options.overrides else vision_row("open-clip", options.model)
    pretrained = _pretrained(options, row)
    if row is not None:
        name = f"open-clip:{options.model}"
        facts = vision_facts(row, name, own=row.image_size, image_size=options.image_size, layers=options.layers)
        return replace(facts, pretrained=pretrained)
    return Capabilities(
        depth=UNKNOWN if options.layers is None else options.layers,
        image_size=UNKNOWN if options.image_size is None else options.image_size,
        patch_size=UNKNOWN,
        any_resolution=UNKNOWN,
        grid=UNKNOWN,
        size_step=UNKNOWN,
        pretrained=pretrained,
    )


def describe_text(options: OpenClipTextOptions) -> Capabilities:
    """Return what is known of a text tower without open_clip: what the table that ships says, at these options.

    Raises:
        SpecError: the tower cannot be a backbone, or cannot be cut.
    """
    row = None if options.overrides else text_row("open-clip", options.model)
    pretrained = _pretrained(options, row)
    if row is not None:
        facts = text_facts(row, f"open-clip:{options.model}", layers=options.layers)
        return replace(
            facts, pretrained=pretrained, positions="absolute", base=False, refused=TEXT_REFUSED, text_blocks=False
        )
    return Capabilities(
        depth=UNKNOWN if options.layers is None else options.layers,
        layered=True,
        class_token=False,
        max_tokens=UNKNOWN,
        vocabulary=UNKNOWN,
        pretrained=pretrained,
        positions="absolute",
        base=False,
        refused=TEXT_REFUSED,
        text_blocks=False,
    )


def _pretrained(
    options: OpenClipVisionOptions | OpenClipTextOptions, row: VisionRow | TextRow | None
) -> bool | Unknown:
    """Return whether there are weights of the tag; a tag that the table does not know may be new in open_clip."""
    if options.revision is None or options.overrides:
        return False
    return True if row is not None and options.revision in tags_of(row) else UNKNOWN


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
