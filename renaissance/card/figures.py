"""How the numbers of a card are written: one function for each kind of number."""

from __future__ import annotations

import json
from collections.abc import Sequence

_THOUSANDS = ("", "k", "M", "G", "T", "P", "E", "Z")


def percent(value: float) -> str:
    """Return a score in percent: '58.3'."""
    return f"{value:.1f}"


def interval(low: float, high: float) -> str:
    """Return the ends of an interval: '[50.0, 66.7]'."""
    return f"[{percent(low)}, {percent(high)}]"


def share(value: float) -> str:
    """Return a share of 1 in percent: '25%'; what is not nothing never looks like it."""
    return f"{value:.3g}%" if 0 < (value := 100 * value) < 1 else f"{value:.1f}".removesuffix(".0") + "%"


def count(value: int) -> str:
    """Return a count, digit by digit: '1,234'."""
    return f"{value:,}"


def short(value: float) -> str:
    """Return a count of parameters or FLOPs with three digits: '363M'."""
    return _in_thousands(value, 1000)


def memory(value: float) -> str:
    """Return bytes with three digits: '867 MiB'."""
    written = _in_thousands(value, 1024)
    number = written.rstrip("".join(_THOUSANDS))
    unit = written.removeprefix(number)
    return f"{number} {unit.upper()}iB" if unit else f"{number} bytes"


def seconds(value: float) -> str:
    """Return seconds: '0.82', '1,234'."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def setting(value: object) -> str:
    """Return a value as a recipe writes it: '0.002', 'null'."""
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def square(side: int) -> str:
    """Return the size of square pictures: '32 x 32 pixels'."""
    return f"{side} x {side} pixels"


def saved(before: float, after: float) -> str:
    """Return what share of `before` is not taken: '63%'; a negative one is more."""
    return share(1 - after / before)


def _in_thousands(value: float, step: int) -> str:
    """Return a number with three digits and the letter of its power of `step`."""
    power = 0
    while abs(value) >= step and power + 1 < len(_THOUSANDS):
        value, power = value / step, power + 1
    digits = 0 if not power else max(0, 2 - (len(str(int(abs(value)))) - 1))
    return f"{value:.{digits}f}{_THOUSANDS[power]}"


def listed(names: Sequence[str], *, nothing: str = "none") -> str:
    """Return names as a sentence lists them: 'a, b and c'."""
    *others, last = names or (nothing,)
    return f"{', '.join(others)} and {last}" if others else last
