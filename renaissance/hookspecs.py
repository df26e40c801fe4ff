"""The three hooks. They take nothing and return descriptions; a plugin implements those that it has something for."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from renaissance.api import BackboneEntry, FusionHeadEntry, TaskEntry

hookspec = pluggy.HookspecMarker("renaissance")


@hookspec
def register_backbones() -> Iterable[BackboneEntry]:
    """Offer vision or text encoders."""
    return ()


@hookspec
def register_fusion_heads() -> Iterable[FusionHeadEntry]:
    """Offer ways to join a vision stream and a text stream."""
    return ()


@hookspec
def register_tasks() -> Iterable[TaskEntry]:
    """Offer things to train for and be measured on."""
    return ()
