"""The sign-flip test: without a difference, each pretraining seed's could as well have had the other sign."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from renaissance.errors import StudyError
from renaissance.studies.statistics.arrays import ROUNDING, Floats, checked_array, json_facts

Alternative = Literal["greater", "less", "two-sided"]

# Up to as many seeds all 2^P sign patterns are counted: 65,536.
EXACT_SEEDS = 16
# Fewer random ones cannot give a p of 0.01.
LEAST_PATTERNS = 99
# Random sign patterns that are worked on at a time.
CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class SignFlip:
    """What the sign-flip test says.

    Attributes:
        p: the share of sign patterns with a mean at least as extreme as the one seen.
        n: the number of pretraining seeds.
        alternative: which means are extreme.
        patterns: how many sign patterns were looked at.
        exact: whether these are all.
        least_p: the least p that this many seeds and patterns can give at all.
    """

    p: float
    n: int
    alternative: Alternative
    patterns: int
    exact: bool
    least_p: float

    def facts(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        facts: dict[str, Any] = json_facts(asdict(self))
        return facts


def least_p(seeds: int, alternative: Alternative = "greater") -> float:
    """Return the least p that an exact test of so many seeds can give: 0.125 at 3, one-sided."""
    return float(min(1.0, 2.0 ** ((alternative == "two-sided") - seeds)))


def sign_flip(
    differences: ArrayLike, *, alternative: Alternative = "greater", seed: int = 0, patterns: int = 9999
) -> SignFlip:
    """Test whether differences [P] are symmetric about 0, by their mean: exactly up to 16 seeds, else by chance.

    Beyond 16 seeds `patterns` random ones are drawn with `seed`, and the one seen is counted among them, so p is never
    below 1 / (patterns + 1) and the test stays valid.

    Raises:
        StudyError: a difference is not finite, there are fewer than two, the alternative is unknown, or there are
            fewer than 99 patterns.
    """
    values = checked_array(differences, "The differences", axes=1)
    if alternative not in ("greater", "less", "two-sided"):
        raise StudyError(f"There is no alternative '{alternative}': choose greater, less or two-sided.")
    if patterns < LEAST_PATTERNS:
        raise StudyError(f"{patterns} sign patterns resolve no p value: draw {LEAST_PATTERNS} at least.")
    n = len(values)
    if n <= EXACT_SEEDS:
        bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
        extreme, total = _extreme(bits, values, alternative), 2**n
        return SignFlip(extreme / total, n, alternative, total, True, least_p(n, alternative))
    generator = np.random.default_rng(seed)
    extreme = 1
    for done in range(0, patterns, CHUNK):
        size = (min(CHUNK, patterns - done), n)
        extreme += _extreme(generator.integers(2, size=size), values, alternative)
    total = patterns + 1
    return SignFlip(extreme / total, n, alternative, patterns, False, 1 / total)


def _extreme(flipped: NDArray[np.int64], values: Floats, alternative: Alternative) -> int:
    """Return how many patterns of flips [N, P] give a sum as extreme as that of the values [P], but for rounding."""
    sums, seen = values.sum() - 2 * (flipped @ values), values.sum()
    if alternative == "less":
        sums, seen = -sums, -seen
    if alternative == "two-sided":
        sums, seen = np.abs(sums), abs(seen)
    return int(np.count_nonzero(sums >= seen - ROUNDING * np.abs(values).sum()))
