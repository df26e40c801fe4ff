"""Probes with their published metrics: MMVP and NaturalBench."""

from __future__ import annotations

from renaissance.api import TaskEntry, hookimpl
from renaissance_plugin_naturalbench.entries import MMVP, NATURALBENCH


@hookimpl
def register_tasks() -> list[TaskEntry]:
    """Offer both probes."""
    return [MMVP, NATURALBENCH]
