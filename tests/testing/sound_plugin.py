"""A plugin that offers a fusion head and a task."""

from __future__ import annotations

from renaissance.api import FusionHeadEntry, TaskEntry, hookimpl
from tests.testing import broken_heads, broken_tasks


@hookimpl
def register_fusion_heads() -> list[FusionHeadEntry]:
    return [broken_heads.entry()]


@hookimpl
def register_tasks() -> list[TaskEntry]:
    return [broken_tasks.entry()]
