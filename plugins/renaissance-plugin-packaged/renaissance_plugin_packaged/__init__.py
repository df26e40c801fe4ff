"""Pretrained towers for renaissance whose weights come from pip packages."""

from __future__ import annotations

from renaissance.api import BackboneEntry, hookimpl
from renaissance_plugin_packaged.entries import E5, EFFICIENTNET, MINILM


@hookimpl
def register_backbones() -> list[BackboneEntry]:
    """Offer EfficientNet-Lite0, MiniLM and multilingual-e5-small."""
    return [EFFICIENTNET, MINILM, E5]
