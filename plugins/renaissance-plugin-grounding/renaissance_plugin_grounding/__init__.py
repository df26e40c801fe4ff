"""Phrase grounding by box regression."""

from __future__ import annotations

from renaissance.api import TaskEntry, hookimpl
from renaissance_plugin_grounding.entries import GROUNDING


@hookimpl
def register_tasks() -> list[TaskEntry]:
    """Offer grounding."""
    return [GROUNDING]
