"""What the task is. Imports no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from renaissance.api import Options, TaskEntry

Weight = Annotated[float, Field(ge=0.0, le=1000.0)]


class GroundingOptions(Options):
    """Options of telling where in an image a phrase is."""

    hidden: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        None, description="Hidden width of the head; that of the fused stream if it is not given."
    )
    l1: Weight = Field(5.0, description="Weight of the distance between the boxes (DETR: 5).")
    giou: Weight = Field(2.0, description="Weight of 1 - generalised IoU (DETR: 2).")


GROUNDING = TaskEntry(
    name="grounding",
    summary="Where in an image is what a phrase names? A box, by regression (L1 + GIoU as in MDETR, arXiv 2104.12763)",
    factory="renaissance_plugin_grounding.grounding:Grounding",
    options=GroundingOptions,
    outputs=frozenset({"vision"}),
    data="items",
    layouts=("refcoco", "refcoco+", "refcocog", "items"),
)
