"""Anchors: released checkpoints with the figures that were published of them, and the check whether we get the same.

Imports no torch until a checkpoint is measured (`renaissance.anchors.running`).
"""

from __future__ import annotations

from renaissance.anchors.anchor import COLUMNS, Anchor, Cost, Figure, anchor_names, as_anchor, cost, rows

__all__ = ["COLUMNS", "Anchor", "Cost", "Figure", "anchor_names", "as_anchor", "cost", "rows"]
