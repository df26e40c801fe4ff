"""The fusion head `example:gated`, described. Imports no torch, so that listing it stays fast."""

from __future__ import annotations

from pydantic import Field

from renaissance.api import FusionHeadEntry, Options, hookimpl


class GatedOptions(Options):
    """Options of gated streams."""

    width: int = Field(256, ge=1, le=65_536, description="Width of both fused streams, and of the pooled vector.")


@hookimpl
def register_fusion_heads() -> list[FusionHeadEntry]:
    """Offer gated streams."""
    return [
        FusionHeadEntry(
            name="gated",
            summary="Each stream scaled by a gate that the other opens; pooled: their product (MLB, arXiv 1610.04325)",
            factory="renaissance_plugin_example.gated:build",
            options=GatedOptions,
            tiny={"width": 32},
        )
    ]
