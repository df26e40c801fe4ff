"""The entry for image models of the timm library: `timm:<model>[@<revision>]`."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, JsonValue

from renaissance.api import UNKNOWN, BackboneEntry, Capabilities, Options
from renaissance.builtin.described import tags_of, vision_facts, vision_row, without_numbers

# an override with which timm builds a model of another class
CHANGES_KIND = frozenset({"use_naflex"})


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
    """Return what is known of a timm model without timm: what the table that ships says, at these options.

    Raises:
        SpecError: the model cannot be a backbone, cannot be cut, or does not take images of that size.
    """
    architecture, _, tag = options.model.partition(".")
    row = vision_row("timm", architecture)
    if row is None or CHANGES_KIND & set(options.overrides):
        return _unknown(options)
    name, tags = f"timm:{options.model}", tags_of(row)
    if options.overrides:  # with these, sizes and cuts are for the build to check
        facts = without_numbers(vision_facts(row, name, own=row.image_size), options.layers)
        side = facts.image_size if options.image_size is None else options.image_size
        return replace(facts, image_size=side, pretrained=False)
    # timm may have weights that the table does not know, for images of another size
    side = tags.get(tag, None if tag else row.image_size)
    facts = vision_facts(row, name, own=side, image_size=options.image_size, layers=options.layers)
    return replace(facts, pretrained=UNKNOWN if tag and tag not in tags else bool(tags))


def _unknown(options: TimmOptions) -> Capabilities:
    """Return what the options alone say of a model that the table does not hold."""
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
