"""What the probes are. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from renaissance.api import Options, TaskEntry


class ProbeOptions(Options):
    """Options of both probes."""

    by: Literal["itm", "itc"] | None = Field(
        None, description="Which scores are compared; null: ITM's where the model has them, else ITC's."
    )


def _probe(name: str, summary: str) -> TaskEntry:
    return TaskEntry(
        name=name,
        summary=summary,
        factory=f"renaissance_plugin_naturalbench.probes:{name}",
        options=ProbeOptions,
        needs_any=("itm", "itc"),
        trains=False,
        data="items",
    )


MMVP = _probe("mmvp", "Two images that CLIP takes for the same, two statements: which image is it? (arXiv 2401.06209)")
NATURALBENCH = _probe(
    "naturalbench", "Two questions with opposite answers for two images (arXiv 2410.14669): Q-, I-, G-Acc and Acc"
)
