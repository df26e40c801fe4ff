"""The built-in fusion heads, described."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from renaissance.api import Capabilities, FusionHeadEntry, Options, TowerNeeds
from renaissance.errors import SpecError

Count = Annotated[int, Field(ge=1, le=65_536)]
Depth = Annotated[int, Field(ge=1, le=1024)]
Ratio = Annotated[float, Field(gt=0.0, le=64.0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Norm = Literal["pre", "post"]
Epsilon = Annotated[float, Field(gt=0.0, le=0.01)]

TINY = {"layers": 2, "width": 32, "heads": 2}


class CrossOptions(Options):
    """Options of heads made of layers with cross attention."""

    layers: Depth = Field(6, description="Fusion layers.")
    width: Count = Field(256, description="Width of both fused streams.")
    heads: Count = Field(4, description="Attention heads; they divide the width.")
    mlp_ratio: Ratio = Field(4.0, description="Hidden width of the MLP over the width.")
    dropout: Rate = Field(0.1, description="Dropout of each sub-layer's output, in training.")
    norm: Norm = Field("post", description="LayerNorm after each sub-layer (BERT), or before it (ViT).")
    norm_eps: Epsilon = Field(1e-12, description="What LayerNorm adds to the variance.")


class MergedOptions(CrossOptions):
    """Options of blocks over one stream of both modalities."""

    norm: Norm = Field("pre", description="LayerNorm before each sub-layer (ViT), or after it (BERT).")
    class_token: bool = Field(True, description="A class token of its own; without one both streams are pooled.")


class BridgeOptions(CrossOptions):
    """Options of co-attention layers that are linked to the towers' top blocks."""

    layers: Depth = Field(6, description="Fusion layers, each linked to one of as many top blocks of each tower.")
    shared_projection: bool = Field(True, description="One projection for all blocks of a tower.")
    vision_norm: bool = Field(True, description="LayerNorm of the vision blocks' outputs, as they are not normed yet.")


class TextCrossOptions(Options):
    """Options of text blocks with cross attention to vision."""

    layers: Depth = Field(6, description="Fusion layers.")
    width: Count | None = Field(None, description="Width of the fused text stream; null: the text tower's.")
    heads: Count = Field(4, description="Attention heads; they divide the width.")
    mlp_ratio: Ratio = Field(4.0, description="Hidden width of the MLP over the width.")
    dropout: Rate = Field(0.1, description="Dropout of each sub-layer's output, in training.")
    norm: Norm = Field("post", description="LayerNorm after each sub-layer (BERT), or before it (ViT).")
    norm_eps: Epsilon = Field(1e-12, description="What LayerNorm adds to the variance.")
    text_blocks: Literal["shared", "inherited"] | None = Field(
        None,
        description="Run the text tower's own first blocks, or start with copies of those that follow its last one.",
    )
    pooler: Literal["tanh", "none"] = Field(
        "tanh", description="Dense layer and tanh on the pooled vector, or neither."
    )


class QFormerOptions(TextCrossOptions):
    """Options of learned queries over vision and text."""

    queries: Count = Field(32, description="Learned queries.")
    cross_every: Depth = Field(2, description="Queries attend to vision in the first of every so many blocks.")


class ConcatOptions(Options):
    """Options of two projected streams."""

    width: Count = Field(256, description="Width of both streams.")


class DualOptions(Options):
    """Options of the projections to a shared space."""

    width: Count = Field(256, description="Width of the shared space.")


def refuse_heads(width: int, heads: int) -> None:
    """Refuse a width that the heads do not divide.

    Raises:
        SpecError: naming the nearest number of heads that does.
    """
    if width % heads:
        divisors = (number for number in range(1, width + 1) if width % number == 0)
        nearest = min(divisors, key=lambda number: abs(number - heads))
        raise SpecError(f"{heads} heads do not divide a width of {width}; the nearest number is {nearest}.")


def check_heads(options: CrossOptions) -> None:
    """Refuse a width that the heads do not divide.

    Raises:
        SpecError: naming the nearest number of heads that does.
    """
    refuse_heads(options.width, options.heads)


def check_text_blocks(options: TextCrossOptions) -> None:
    """Refuse heads that do not divide the width, and a width beside blocks that have theirs.

    Raises:
        SpecError: one of these.
    """
    if options.text_blocks is not None and options.norm == "pre":
        raise SpecError(
            f"With {options.text_blocks} text blocks the norms stand where the text tower's do; leave norm out."
        )
    if options.width is None:
        return  # the text tower's, which `text_width_fits` checks
    if options.text_blocks is not None:
        raise SpecError(
            f"With {options.text_blocks} text blocks the fusion has the text tower's width: "
            f"leave out width={options.width}."
        )
    refuse_heads(options.width, options.heads)


def check_text_cross(options: TextCrossOptions) -> None:
    """Refuse what `check_text_blocks` does, and an MLP ratio beside blocks that have their MLP.

    Raises:
        SpecError: one of these.
    """
    check_text_blocks(options)
    if options.text_blocks is not None and options.mlp_ratio != TextCrossOptions.model_fields["mlp_ratio"].default:
        raise SpecError(
            f"With {options.text_blocks} text blocks the MLPs are the text tower's: "
            f"leave out mlp_ratio={options.mlp_ratio}."
        )


def text_width_fits(options: TextCrossOptions, vision: Capabilities, text: Capabilities) -> None:
    """Refuse heads that do not divide the text tower's width, where the fusion has that.

    Raises:
        SpecError: naming the nearest number of heads that does.
    """
    if options.width is None and isinstance(text.width, int):
        refuse_heads(text.width, options.heads)


def bridge_needs(options: BridgeOptions) -> TowerNeeds:
    """Return the need for the outputs of as many blocks of each tower as there are layers."""
    return TowerNeeds(layers=options.layers)


def text_block_needs(options: TextCrossOptions) -> TowerNeeds:
    """Return the need for blocks of the text tower, where the options name them."""
    if options.text_blocks is None:
        return TowerNeeds()
    return TowerNeeds(text_blocks=options.text_blocks, count=options.layers, embedded=options.text_blocks == "shared")


FUSION_HEADS = (
    FusionHeadEntry(
        name="lxmert",
        summary="Cross-modality layers of LXMERT (arXiv 1908.07490): both streams attend to each other, weights shared",
        factory="renaissance.builtin.fusion:lxmert",
        options=CrossOptions,
        tiny=TINY,
        check=check_heads,
    ),
    FusionHeadEntry(
        name="co-attention",
        summary="Co-attention of METER (arXiv 2111.02387): each stream has its own self and cross attention",
        factory="renaissance.builtin.fusion:co_attention",
        options=CrossOptions,
        tiny=TINY,
        check=check_heads,
    ),
    FusionHeadEntry(
        name="concat",
        summary="No layers: both projected streams as they are; pooled: both vectors, concatenated",
        factory="renaissance.builtin.fusion:concat",
        options=ConcatOptions,
        tiny={"width": 32},
    ),
    FusionHeadEntry(
        name="merged-attention",
        summary="Transformer blocks over one stream of both modalities (FLAVA, arXiv 2112.04482; ViLT, 2102.03334)",
        factory="renaissance.builtin.fusion_merged:merged_attention",
        options=MergedOptions,
        tiny=TINY,
        check=check_heads,
    ),
    FusionHeadEntry(
        name="bridge",
        summary="Co-attention layers linked to the top blocks of both towers (BridgeTower, arXiv 2206.08657)",
        factory="renaissance.builtin.fusion_bridge:bridge",
        options=BridgeOptions,
        tiny=TINY,
        check=check_heads,
        needs=bridge_needs,
    ),
    FusionHeadEntry(
        name="text-cross-attention",
        summary="Text blocks with cross attention to vision (ALBEF, arXiv 2107.07651; BLIP, 2201.12086)",
        factory="renaissance.builtin.fusion_text:text_cross_attention",
        options=TextCrossOptions,
        tiny=TINY,
        outputs=frozenset({"text", "pooled"}),
        check=check_text_cross,
        fits=text_width_fits,
        needs=text_block_needs,
    ),
    FusionHeadEntry(
        name="q-former",
        summary="Learned queries attend with the text and to vision (BLIP-2, arXiv 2301.12597)",
        factory="renaissance.builtin.fusion_text:q_former",
        options=QFormerOptions,
        tiny={**TINY, "queries": 4},
        check=check_text_blocks,
        fits=text_width_fits,
        needs=text_block_needs,
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
