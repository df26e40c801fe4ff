"""What the statistics take and return: arrays that are checked once, at the border, and facts for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from renaissance.errors import StudyError

Floats = NDArray[np.float64]

AXES = ("pretraining seeds", "fine-tuning seeds", "items")
# Differences of equal scores differ by rounding alone; this is far below what any score resolves.
ROUNDING = 1e-12


def checked_arms(scores: Mapping[str, ArrayLike], weights: Mapping[str, float], *, axes: int) -> dict[str, Floats]:
    """Return the arms that have a weight, as arrays [P, F] (`axes` is 2) or [P, F, U] (3) of one shape.

    Raises:
        StudyError: an arm is missing, or has another number of axes, another shape, NaN, or fewer than two seeds.
    """
    if not weights:
        raise StudyError("The contrast weighs no arm: give at least one arm a weight.")
    for arm, weight in weights.items():
        if arm not in scores:
            raise StudyError(
                f"There are no scores of the arm '{arm}' that the contrast weighs; there are {_told(scores)}."
            )
        if not math.isfinite(weight):
            raise StudyError(f"The weight of the arm '{arm}' is {weight}: give it a finite one.")
    arms = {arm: checked_array(scores[arm], f"The arm '{arm}'", axes=axes) for arm in weights}
    first = next(iter(arms))
    for arm, array in arms.items():
        if array.shape != arms[first].shape:
            raise StudyError(
                f"The arms '{first}' {list(arms[first].shape)} and '{arm}' {list(array.shape)} do not pair: "
                f"each needs the same {', '.join(AXES[:axes])}."
            )
    return arms


def checked_array(values: ArrayLike, what: str, *, axes: int) -> Floats:
    """Return finite numbers as an array [P], [P, F] or [P, F, U], with P of at least two.

    Raises:
        StudyError: it has another number of axes, is empty, is not of numbers, holds NaN, or has fewer than two seeds.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise StudyError(f"{what} is not a full array of numbers: each run must have all of its scores.") from None
    if array.ndim != axes or 0 in array.shape:
        raise StudyError(
            f"{what} has shape {list(array.shape)}: it must be [{', '.join(AXES[:axes])}], none of them 0."
        )
    if array.shape[0] < 2:
        raise StudyError(f"{what} has one pretraining seed: without a second one nothing is known of the spread.")
    if not np.isfinite(array).all():
        where = [int(index) for index in np.argwhere(~np.isfinite(array))[0]]
        raise StudyError(f"{what} holds {array[tuple(where)]} at {where}: find the run that gave it, and why.")
    return array


def checked_share(value: float, what: str) -> float:
    """Return a number between 0 and 1, both excluded.

    Raises:
        StudyError: it is none.
    """
    if not 0 < value < 1:
        raise StudyError(f"{what} is {value}: give a number between 0 and 1, both excluded.")
    return float(value)


def json_facts(value: Any) -> Any:
    """Return mappings, sequences and numbers as JSON knows them; what is not finite becomes None."""
    match value:
        case Mapping():
            return {key: json_facts(inner) for key, inner in value.items()}
        case str() | bool() | int() | None:
            return value
        case float():
            return float(value) if math.isfinite(value) else None
        case Sequence():
            return [json_facts(inner) for inner in value]
        case _:
            raise TypeError(f"not a fact: {value!r}")


def _told(names: Mapping[str, object]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
