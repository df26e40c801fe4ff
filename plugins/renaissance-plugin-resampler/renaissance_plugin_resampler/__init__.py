"""A fusion head with a Perceiver resampler."""

from __future__ import annotations

from renaissance.api import FusionHeadEntry, hookimpl
from renaissance_plugin_resampler.entries import RESAMPLER


@hookimpl
def register_fusion_heads() -> list[FusionHeadEntry]:
    """Offer the Perceiver resampler."""
    return [RESAMPLER]
