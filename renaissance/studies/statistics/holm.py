"""Holm's correction: which of several stated hypotheses stand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from statsmodels.stats.multitest import multipletests

from renaissance.errors import StudyError
from renaissance.studies.statistics.arrays import checked_share, json_facts


@dataclass(frozen=True, slots=True)
class Holm:
    """Corrected p values by hypothesis, in the order given.

    Attributes:
        adjusted: at most alpha where the hypothesis stands.
        stands: whether it does; the chance that any does whose null is true is at most alpha.
        alpha: of the whole family.
    """

    adjusted: Mapping[str, float]
    stands: Mapping[str, bool]
    alpha: float

    def facts(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        facts: dict[str, Any] = json_facts(asdict(self))
        return facts


def holm(p_values: Mapping[str, float], *, alpha: float = 0.05) -> Holm:
    """Correct the p values of all hypotheses that were stated before the run, also of those that came out badly.

    Raises:
        StudyError: there is none, a p value is not between 0 and 1, or alpha is not.
    """
    checked_share(alpha, "The level of the family")
    if not p_values:
        raise StudyError("There is no hypothesis to correct for: state at least one.")
    for name, p in p_values.items():
        if math.isnan(p) or not 0 <= p <= 1:
            raise StudyError(f"The p value of '{name}' is {p}: a test must give a number from 0 to 1.")
    stands, adjusted, _, _ = multipletests(list(p_values.values()), alpha=alpha, method="holm")
    return Holm(
        adjusted={name: float(p) for name, p in zip(p_values, adjusted, strict=True)},
        stands={name: bool(stood) for name, stood in zip(p_values, stands, strict=True)},
        alpha=alpha,
    )
