"""The values that a recipe's keys may have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1, le=2**40)]
OnBadSample = Literal["error", "skip"]
SKIP_BUDGET = 0.001  # the share of bad samples that may be left out where the user says nothing else
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, le=1e9)]
NotNegative = Annotated[float, Field(ge=0.0, le=1e9)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-:]*$", max_length=100)]
