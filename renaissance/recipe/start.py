"""Where a model starts: what may change in one that was saved."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from renaissance.recipe.freezing import PartName
from renaissance.recipe.values import Name
from renaissance.spec import Strict


class Surgery(Strict):
    """What a start from a saved model may change; whatever differs without being named here is an error."""

    drop_tasks: tuple[Name, ...] = Field((), strict=False, description="Heads that are left behind.")
    add_tasks: tuple[Name, ...] = Field((), strict=False, description="Heads that are new.")
    thaw: tuple[PartName, ...] = Field((), strict=False, description="Parts that were frozen and train now.")
    freeze: tuple[PartName, ...] = Field((), strict=False, description="Parts that hold still now.")
    image_size: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        None, description="Another side of the images in pixels; position tables are interpolated."
    )
    max_tokens: Annotated[int, Field(ge=3, le=1_000_000)] | None = Field(
        None, description="Another longest text in tokens; position tables are cut off, or continued by new rows."
    )


class SavedStart(Strict):
    """Start from a model that was saved: a folder, or a repository of the Hub."""

    model: str = Field(
        min_length=1, max_length=400, description="A model folder, a run folder, or 'org/name[@commit]'."
    )
    surgery: Surgery = Surgery()
    trust: tuple[str, ...] = Field((), strict=False, description="Plugins that a model of the Hub may use, by name.")
