"""The effect plot: each hypothesis as its mean difference, interval, margin and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import MaxNLocator

from renaissance.report.drawing import (
    BAD,
    GOOD,
    INK,
    LINE,
    MUTED,
    NONE,
    OPEN,
    WIDE,
    Drawing,
    amounts,
    box,
    cut,
    drawn,
    paper,
)
from renaissance.report.facts import Hypothesis
from renaissance.report.wording import BADGES, effect, ledger_key, level_of, listed, margin, metric_name

_HEAD, _FOOT = 26, 46
_TONES = {"good": GOOD, "bad": BAD, "open": OPEN, "none": NONE}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where names and verdicts stand: beside the intervals of a wide figure, above those of a narrow one."""

    left: int
    right: int
    row: int
    name: float  # heights in a row, which reaches from -0.5 to 0.5
    metric: float
    verdict: float
    bar: float
    seeds: float
    margin: float  # where its line begins
    zero: float


_BESIDE = _Layout(236, 104, 46, -0.07, 0.07, 0.0, 0.0, 0.2, -0.36, -0.5)
_ABOVE = _Layout(2, 10, 72, -0.24, -0.2, -0.34, 0.18, 0.34, 0.0, 0.0)


def effect_plot(hypotheses: Sequence[Hypothesis], *, name: str = "effects") -> Drawing | None:
    """Return the plot of those that have an estimate, a panel for scores and one for each figure of ledgers."""
    known = [hypothesis for hypothesis in hypotheses if hypothesis.estimate is not None]
    if not known:
        return None
    levels = listed(dict.fromkeys(map(level_of, known)))
    caption = (
        f"Mean difference with its {levels} interval (bar), the differences of single seeds (small dots), the margin "
        "(dashed). The primary hypothesis has a square."
    )
    if any(found.margin is not None and found.margin.share is not None for found in known):
        caption += (
            " A margin that is a share of a gain varies with the gain from seed to seed, and p is one-sided and counts "
            "that: it is p that decides, not where the bar ends against the mean of the margin."
        )
    return drawn(name, caption, _alt(known), lambda width: _plot(known, width))


def _plot(known: Sequence[Hypothesis], width: int) -> Any:
    panels, layout = _panels(known), _BESIDE if width == WIDE else _ABOVE
    heights = [_HEAD + layout.row * len(rows) + _FOOT for rows in panels.values()]
    figure, top = paper(width, sum(heights)), 0
    for (key, rows), height in zip(panels.items(), heights, strict=True):
        room = width - layout.left - layout.right
        _panel(box(figure, layout.left, top + _HEAD, room, layout.row * len(rows)), rows, key, layout, room)
        top += height
    return figure


def _panels(hypotheses: Sequence[Hypothesis]) -> dict[str | None, list[Hypothesis]]:
    found: dict[str | None, list[Hypothesis]] = {}
    for hypothesis in hypotheses:
        found.setdefault(ledger_key(hypothesis.metric), []).append(hypothesis)
    return found


def _panel(axes: Any, rows: Sequence[Hypothesis], key: str | None, layout: _Layout, room: int) -> None:
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    for place, hypothesis in enumerate(rows):
        axes.plot((0, 0), (place + layout.zero, place + 0.5), color=INK, linewidth=1)
        if place:
            axes.axhline(place - 0.5, color=LINE, linewidth=0.6)
        _effect(axes, place, hypothesis, layout)
        _words(axes, place, hypothesis, layout, room)
    axes.margins(x=0.08)
    axes.set_xlabel("difference in score" if key is None else f"difference in {key.replace('_', ' ')}", loc="left")
    if key is None:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    else:
        amounts(axes.xaxis)


def _effect(axes: Any, place: int, hypothesis: Hypothesis, layout: _Layout) -> None:
    found, tone = hypothesis.estimate, _TONES[BADGES[hypothesis.verdict].tone]
    assert found is not None, "only those with an estimate are drawn"
    for end in _margins(hypothesis):
        reach = (place + layout.margin, place + 0.4)
        axes.plot((end, end), reach, color=MUTED, linewidth=1.4, linestyle=(0, (3, 2)))
    seeds, at = hypothesis.differences, place + layout.bar
    axes.scatter(seeds, [place + layout.seeds] * len(seeds), s=12, color=tone, alpha=0.45, lw=0)
    if found.low is not None and found.high is not None:
        axes.plot((found.low, found.high), (at, at), color=tone, linewidth=4, alpha=0.55, solid_capstyle="round")
    marker, size = ("s", 64) if hypothesis.primary else ("o", 56)
    axes.scatter([found.mean], [at], marker=marker, s=size, color=tone, zorder=3, lw=0)


def _words(axes: Any, place: int, hypothesis: Hypothesis, layout: _Layout, room: int) -> None:
    badge, style = BADGES[hypothesis.verdict], {"transform": axes.get_yaxis_transform(), "clip_on": False}
    left, weight = -layout.left / room, "bold" if hypothesis.primary else "normal"
    name, metric = cut(hypothesis.name, 30), cut(metric_name(hypothesis.metric), 38)
    axes.text(left, place + layout.name, name, va="bottom", fontsize=13, weight=weight, **style)
    axes.text(left, place + layout.metric, metric, va="top", fontsize=11, color=MUTED, **style)
    end, side = (1.03, "left") if layout is _BESIDE else (1.0, "right")
    said, tone = f"{badge.sign} {badge.word}", _TONES[badge.tone]
    axes.text(end, place + layout.verdict, said, ha=side, va="center", fontsize=12, color=tone, **style)


def _margins(hypothesis: Hypothesis) -> tuple[float, ...]:
    """Return the ends of what counts as no loss, as alike, or as greater than nothing."""
    if hypothesis.margin is None or not hypothesis.margin.value:
        return ()
    value = abs(hypothesis.margin.value)
    return {"greater": (hypothesis.margin.value,), "no-loss": (-value,), "alike": (-value, value)}[hypothesis.kind]


def _alt(hypotheses: Sequence[Hypothesis]) -> str:
    said = []
    for hypothesis in hypotheses:
        mean, interval, _ = effect(hypothesis.estimate, hypothesis.metric)
        beyond = f", margin {margin(hypothesis)}" if hypothesis.margin else ""
        said.append(f"{hypothesis.name}: {mean} {interval}{beyond}, {BADGES[hypothesis.verdict].word}")
    return f"Effects of {len(hypotheses)} hypotheses. {'; '.join(said)}."
