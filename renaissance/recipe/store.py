"""Where, and how exactly, a run keeps what frozen towers give."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from renaissance.spec import Strict


class Store(Strict):
    """A store of what frozen towers, or frozen first layers, give: they run once over the data."""

    dtype: Literal["exact", "fp32", "fp16", "bf16"] = Field(
        "exact", description="In which it is kept; exact: that of the tower, which changes no bit of the training."
    )
    folder: str | None = Field(None, description="Default: 'features' in the cache (RENAISSANCE_CACHE).")
