"""How much may be left out where bad samples are skipped: a share of what there is, counted exactly.

Of n samples, at most n x budget may be left out. Nothing is rounded up: fewer than a thousand samples have no room for
a bad one at the default of a thousandth, and say so with the first.
"""

from __future__ import annotations

from fractions import Fraction

from renaissance.errors import DataError
from renaissance.recipe.values import SKIP_BUDGET


def room(of: int, budget: float = SKIP_BUDGET) -> int:
    """Return how many of so many samples may be left out."""
    # the share as it was written: in binary floating point 0.1 of ten is more than one, and 0.7 of ten fewer than seven
    return int(Fraction(repr(budget)) * of)


def check_budget(left_out: int, of: int, budget: float, *, what: str, first: str, key: str = "skip_budget") -> None:
    """Refuse to leave out more than the budget allows. of: all of them, those that are left out among them.

    what: the samples ("samples of 'train'"). first: the fault of one of them. key: how a user sets the budget.

    Raises:
        DataError: it is more; the message has both counts and the key.
    """
    if left_out <= room(of, budget):
        return
    raise DataError(
        f"{left_out:,} of {of:,} {what} cannot be used, and {key} {budget:g} allows {room(of, budget):,}. One of them: "
        f"{first.removesuffix('.')}. Mend or remove them, or raise {key}."
    )
