"""SigLIP 2 with native aspect ratios (NaFlex)."""

from __future__ import annotations

from renaissance.api import BackboneEntry, hookimpl
from renaissance_plugin_naflex.entries import BASE, SO400M


@hookimpl
def register_backbones() -> list[BackboneEntry]:
    """Offer the vision towers of SigLIP 2 that were trained with native aspect ratios."""
    return [BASE, SO400M]
