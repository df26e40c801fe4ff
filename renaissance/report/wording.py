"""How numbers, scores and verdicts are written: one function for each kind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from renaissance.report.facts import Hypothesis, Mean

NOTHING = "–"  # where there is no number
_MINUS = "\N{MINUS SIGN}"
_THOUSANDS = ("", "k", "M", "G", "T", "P", "E", "Z")


@dataclass(frozen=True, slots=True)
class Badge:
    """A verdict in a word, with a sign that tells it apart without colour; `tone` is its class in the style sheet."""

    word: str
    sign: str
    tone: str


BADGES = {
    "supported": Badge("supported", "✓", "good"),
    "refuted": Badge("refuted", "✕", "bad"),
    "undecided": Badge("undecided", "?", "open"),
    "void": Badge("void", "∅", "none"),
    "not tested here": Badge("not tested here", "–", "none"),
    None: Badge("no verdict", "–", "none"),
}
KINDS = {"greater": "is greater", "no-loss": "loses nothing", "alike": "are alike"}

# --- numbers ----------------------------------------------------------------------------------------------------------


def decimals(values: Iterable[float | None]) -> int:
    """Return how many decimals tell numbers of this size apart: three where all are below 1."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    return 1 if largest >= 10 else 2 if largest >= 1 else 3


def fixed(value: float | None, places: int, *, signed: bool = False) -> str:
    """Return a number with so many decimals: '58.3', '−0.21'; no number is a dash, and no zero is negative."""
    if value is None:
        return NOTHING
    rounded = round(value, places) + 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{places}f}".replace("-", _MINUS)


def between(low: float | None, high: float | None, places: int) -> str:
    """Return an interval: '[50.0, 66.7]'."""
    return NOTHING if low is None or high is None else f"[{fixed(low, places)}, {fixed(high, places)}]"


def count(value: float | None) -> str:
    """Return a count, digit by digit: '1,234'."""
    return NOTHING if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """Return a count of parameters, samples or FLOPs with three digits: '363M'."""
    return NOTHING if value is None else _in_thousands(value, 1000)


def memory(value: float | None) -> str:
    """Return bytes with three digits: '867 MiB'."""
    if value is None:
        return NOTHING
    written = _in_thousands(value, 1024)
    number = written.rstrip("".join(_THOUSANDS))
    unit = written.removeprefix(number)
    return f"{number} {unit.upper()}iB" if unit else f"{number} bytes"


def duration(seconds: float | None) -> str:
    """Return a time as it is spoken of: '0.82 s', '4 min 10 s', '2 h 05 min'."""
    if seconds is None:
        return NOTHING
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def share(value: float | None, *, signed: bool = False) -> str:
    """Return a share of 1 in percent: '25%'."""
    places = 0 if value is None or abs(value) >= 0.0995 or abs(value) < 0.0005 else 1
    return NOTHING if value is None else f"{fixed(100 * value, places, signed=signed)}%"


def probability(value: float | None) -> str:
    """Return a p value: '0.034', '< 0.001'."""
    return NOTHING if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _in_thousands(value: float, step: int) -> str:
    """Return a number with three digits and the letter of its power of `step`."""
    power = 0
    while abs(value) >= step and power + 1 < len(_THOUSANDS):
        value, power = value / step, power + 1
    whole = len(str(int(abs(value))))
    places = max(0, 3 - whole) if power else 0 if value == int(value) else max(0, 3 - whole)
    return f"{value:.{places}f}{_THOUSANDS[power]}".replace("-", _MINUS)


# --- scores -----------------------------------------------------------------------------------------------------------


def metric_name(metric: str) -> str:
    """Return a metric as it is read: 'finetune · test · vqav2 · accuracy'."""
    return " · ".join(metric.replace("_", " ").split("/"))


def ledger_key(metric: str) -> str | None:
    """Return which figure of a ledger a metric is; None: it is a score."""
    parts = metric.split("/")
    return parts[-1] if len(parts) == 3 and parts[1] == "ledger" else None


def quantity(value: float | None, key: str | None, places: int = 2, *, signed: bool = False) -> str:
    """Return a score with so many decimals, or a figure of a ledger with its unit."""
    if value is None or key is None:
        return fixed(value, places, signed=signed)
    plus = "+" if signed and value > 0 else ""
    if "flops" in key:
        return f"{plus}{short(value)}"
    if "bytes" in key:
        return f"{plus}{memory(value)}".replace("-", _MINUS)
    if "seconds" in key:
        return f"{plus if value >= 0 else _MINUS}{duration(abs(value))}"
    return f"{plus}{short(value)}"


def effect(found: Mean | None, metric: str) -> tuple[str, str, str]:
    """Return a mean difference, its interval, and its standard deviation over seeds."""
    if found is None:
        return NOTHING, NOTHING, NOTHING
    key, places = ledger_key(metric), decimals((found.mean, found.low, found.high))
    ends = [quantity(end, key, places) for end in (found.low, found.high)]
    interval = NOTHING if found.low is None or found.high is None else f"[{ends[0]}, {ends[1]}]"
    return quantity(found.mean, key, places, signed=True), interval, quantity(found.sd, key, places)


def margin(hypothesis: Hypothesis) -> str:
    """Return the margin of a hypothesis, to the sides that it has, and what it is a share of."""
    found = hypothesis.margin
    if found is None or found.value is None:
        return NOTHING
    side = {"greater": "", "no-loss": _MINUS, "alike": "±"}[hypothesis.kind]
    value = abs(found.value) if side else found.value
    said = side + quantity(value, ledger_key(hypothesis.metric), decimals((value,))) if value else "0"
    if found.share is None:
        return said
    of = f" of {found.of[0]} over {found.of[1]}" if found.of and len(found.of) == 2 else ""
    return f"{said} ({share(found.share)} of the gain{of})"


def level_of(hypothesis: Hypothesis) -> str:
    """Return the level of the interval of its estimate: '95%'."""
    return f"{100 * (hypothesis.estimate.level if hypothesis.estimate else 0.95):g}%"


def standing(hypothesis: Hypothesis) -> str:
    """Return what weight a verdict has: primary or not, confirmatory or exploratory."""
    weight = "confirmatory" if hypothesis.confirmatory else "exploratory"
    return f"primary, {weight}" if hypothesis.primary else weight


def listed(names: Iterable[str], *, nothing: str = "none") -> str:
    """Return names as a sentence lists them: 'a, b and c'."""
    *others, last = list(names) or [nothing]
    return f"{', '.join(others)} and {last}" if others else last
