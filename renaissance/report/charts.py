"""The other figures: compute against score, learning curves, what is trained, where scores vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import FuncFormatter, MaxNLocator

from renaissance.report.drawing import (
    DASHES,
    GROUND,
    INK,
    MARKERS,
    MUTED,
    SERIES,
    WIDE,
    Drawing,
    amount,
    amounts,
    box,
    cut,
    drawn,
    paper,
)
from renaissance.report.facts import Arm, Curve, Parameters, Variance
from renaissance.report.wording import metric_name, share, short

# units of a drawing
_LEFT, _GAP, _PANEL, _AXIS, _BETWEEN = 48, 28, 200, 50, 24
_LETTERS = 30  # of a name in a legend
_SOURCES = {"pretraining": "pretraining seed", "finetuning": "fine-tuning seed", "items": "items"}
MOST_POINTS = 20


@dataclass(frozen=True, slots=True)
class Spot:
    """An arm in the plane of compute and score."""

    arm: str
    flops: float
    mean: float
    low: float | None
    high: float | None


def compute_plot(metric: str, spots: Sequence[Spot], order: Sequence[str], *, name: str) -> Drawing:
    """Return scores against the FLOPs that the arms took up to them."""
    said = "; ".join(f"{spot.arm}: {spot.mean:.3g} at {short(spot.flops)} FLOPs" for spot in spots)
    caption = f"Compute against score: {metric_name(metric)}, with intervals. Better is up and to the left."
    alt = f"{metric_name(metric)} against FLOPs. {said}."
    return drawn(name, caption, alt, lambda width: _compute(metric, spots, order, width))


def _compute(metric: str, spots: Sequence[Spot], order: Sequence[str], width: int) -> Any:
    names = [arm for arm in order if arm in {spot.arm for spot in spots}]
    top = _legend_height(names, width) + _GAP
    figure = paper(width, top + 280 + _AXIS)
    axes = box(figure, _LEFT, top, width - _LEFT - 20, 280)
    for spot in spots:
        colour, marker, _ = _look(order, spot.arm)
        if spot.low is not None and spot.high is not None:
            axes.plot((spot.flops, spot.flops), (spot.low, spot.high), color=colour, linewidth=3, alpha=0.45)
        axes.scatter([spot.flops], [spot.mean], s=80, color=colour, marker=marker, lw=0, zorder=3, label=spot.arm)
    _legend(figure, axes, names, width)
    least, most = min(spot.flops for spot in spots), max(spot.flops for spot in spots)
    if 0 < 20 * least < most:
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(value)))
    else:
        axes.set_xlim(0, 1.06 * most or 1)
        amounts(axes.xaxis)
    axes.margins(y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("FLOPs as run, up to this score", loc="left")
    axes.set_title(metric_name(metric), color=INK, pad=8)
    return figure


def curve_plot(stage: str, metrics: Mapping[str, Sequence[Curve]], order: Sequence[str], *, name: str) -> Drawing:
    """Return the curves of a stage, of each metric over samples and over FLOPs where those are known."""
    ends = "; ".join(
        f"{metric_name(metric)}: {', '.join(f'{curve.arm} ends at {curve.points[-1][3]:.3g}' for curve in curves)}"
        for metric, curves in metrics.items()
    )
    caption = f"Learning curves of {stage}: means over seeds, shaded from the lowest seed to the highest."
    alt = f"Learning curves of {stage}. {ends}."
    return drawn(name, caption, alt, lambda width: _curves(metrics, order, width))


def _curves(metrics: Mapping[str, Sequence[Curve]], order: Sequence[str], width: int) -> Any:
    shown = {curve.arm for curves in metrics.values() for curve in curves}
    names = [arm for arm in order if arm in shown]
    whole = all(point[1] is not None and point[2] is not None for curves in metrics.values() for curve in curves
                for point in curve.points)  # fmt: skip
    axis = (("samples", 1), ("FLOPs", 2)) if whole else (("updates", 0),)
    cells = [(metric, label, at) for metric in metrics for label, at in axis]
    columns = len(axis) if width == WIDE else 1
    top, row = _legend_height(names, width), _GAP + _PANEL + _AXIS
    across = (width - _LEFT - 20 - _BETWEEN * (columns - 1)) / columns
    figure = paper(width, top + row * -(-len(cells) // columns))
    for place, (metric, label, at) in enumerate(cells):
        left = _LEFT + place % columns * (across + _BETWEEN)
        axes = box(figure, left, top + place // columns * row + _GAP, across, _PANEL)
        for curve in metrics[metric]:
            _curve(axes, curve, order, at)
        amounts(axes.xaxis, most=4)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlim(left=0)
        axes.set_xlabel(label, loc="left")
        axes.tick_params(labelleft=place % columns == 0)
        if place % columns == 0:
            axes.set_title(metric_name(metric), color=INK, pad=8)
    _legend(figure, figure.axes[0], names, width)
    return figure


def size_plot(arms: Sequence[Arm]) -> Drawing | None:
    """Return the parameters of the arms, the trained ones solid; None where they are not known."""
    sizes = {arm.name: arm.parameters for arm in arms if arm.parameters is not None}
    if not sizes:
        return None
    said = "; ".join(f"{name}: {short(size.trainable)} of {short(size.total)}" for name, size in sizes.items())
    caption = "What each arm trains of its parameters in its first stage."
    return drawn("trained", caption, f"Trained parameters. {said}.", lambda width: _sizes(sizes, width))


def _sizes(sizes: Mapping[str, Parameters], width: int) -> Any:
    left, right, letters = (170, 150, 22) if width == WIDE else (112, 112, 14)
    figure = paper(width, 34 * len(sizes) + 58)
    axes = box(figure, left, 8, width - left - right, 34 * len(sizes))
    outside = {"transform": axes.get_yaxis_transform(), "va": "center", "color": MUTED, "fontsize": 11.5}
    for place, size in enumerate(sizes.values()):
        axes.barh(place, size.total, height=0.46, facecolor=GROUND, edgecolor=MUTED, linewidth=1, hatch="////")
        axes.barh(place, size.trainable, height=0.46, color=SERIES[0])
        axes.text(1.03, place, f"{short(size.trainable)} of {short(size.total)}", **outside)
    axes.set_yticks(range(len(sizes)), [cut(name, letters) for name in sizes], color=INK)
    axes.set_ylim(len(sizes) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    amounts(axes.xaxis, most=4 if width == WIDE else 2)
    axes.set_xlabel("trained (solid), frozen (hatched)", loc="left")
    return figure


def variance_plot(rows: Sequence[Variance]) -> Drawing:
    """Return the shares of the variance of each score."""
    said = "; ".join(
        f"{found.arm}, {metric_name(found.metric)}: "
        f"{', '.join(f'{label} {share(getattr(found, key))}' for key, label in _SOURCES.items())}"
        for found in rows
    )
    caption = "Of the variance of one run's score, what comes from its seeds and what from the items of the test."
    return drawn("variance", caption, f"Shares of the variance. {said}.", lambda width: _variance(rows, width))


def _variance(rows: Sequence[Variance], width: int) -> Any:
    wide = width == WIDE
    left, row, top = (250 if wide else 2), (40 if wide else 66), 34
    figure = paper(width, top + row * len(rows) + 50)
    room = width - left - 24
    axes = box(figure, left, top, room, row * len(rows))
    bars = [place + (0 if wide else 0.24) for place in range(len(rows))]
    before = [0.0] * len(rows)
    for ink, (key, label) in zip(SERIES, _SOURCES.items(), strict=False):
        shares = [100 * (getattr(found, key) or 0.0) for found in rows]
        style = {"height": 0.52 if wide else 0.34, "color": ink, "edgecolor": GROUND}
        axes.barh(bars, shares, left=before, label=label, **style)
        before = [start + length for start, length in zip(before, shares, strict=True)]
    outside = {"transform": axes.get_yaxis_transform(), "clip_on": False}
    for place, found in enumerate(rows):
        middle = place - (0 if wide else 0.22)
        name, metric = cut(found.arm, 32), cut(metric_name(found.metric), 40)
        axes.text(-left / room, middle - 0.04, name, va="bottom", fontsize=12.5, **outside)
        axes.text(-left / room, middle + 0.04, metric, va="top", fontsize=11, color=MUTED, **outside)
    axes.set_yticks([])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of the variance, %", loc="left")
    handles, labels = axes.get_legend_handles_labels()
    style = {"columnspacing": 1.2, "handlelength": 0.9, "handletextpad": 0.4, "fontsize": 12 if wide else 11}
    figure.legend(handles, labels, loc="upper left", ncols=3, borderaxespad=0.2, **style)
    return figure


# --- what figures share -----------------------------------------------------------------------------------------------


def _look(order: Sequence[str], arm: str) -> tuple[str, str, Any]:
    """Return the ink, the marker and the dashes of an arm: no two arms share all three."""
    place = order.index(arm)
    dashes = DASHES[(place // len(SERIES) + place % 2) % len(DASHES)]
    return SERIES[place % len(SERIES)], MARKERS[(place + place // len(SERIES)) % len(MARKERS)], dashes


def _curve(axes: Any, curve: Curve, order: Sequence[str], at: int) -> None:
    step = -(-len(curve.points) // MOST_POINTS)
    points = [point for place, point in enumerate(curve.points) if place % step == 0 or point is curve.points[-1]]
    colour, marker, dashes = _look(order, curve.arm)
    ticks = [point[at] for point in points]
    if all(point[4] is not None and point[5] is not None for point in points):
        lows, highs = [point[4] for point in points], [point[5] for point in points]
        axes.fill_between(ticks, lows, highs, color=colour, alpha=0.14, lw=0)
    means = [point[3] for point in points]
    axes.plot(
        ticks, means, color=colour, linestyle=dashes, marker=marker, markersize=5, markevery=max(1, len(points) // 6),
        markeredgewidth=0, label=curve.arm,
    )  # fmt: skip


def _legend(figure: Any, axes: Any, names: Sequence[str], width: int) -> None:
    """Name the arms above all panels, in the order of the study."""
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    columns = _columns(names, width)
    known = [name for name in names if name in handles]
    # a legend fills its columns one by one, and is read by rows
    by_row = [name for column in range(columns) for name in known[column::columns]]
    figure.legend(
        [handles[name] for name in by_row], [cut(name, _LETTERS) for name in by_row], loc="upper left", ncols=columns,
        borderaxespad=0.2, columnspacing=1.4, handlelength=2.2, handletextpad=0.6,
    )  # fmt: skip


def _columns(names: Sequence[str], width: int) -> int:
    longest = max(min(len(name), _LETTERS) for name in names)
    return max(1, min(len(names), int((width - 10) // (54 + 6.8 * longest))))


def _legend_height(names: Sequence[str], width: int) -> int:
    return 18 * -(-len(names) // _columns(names, width)) + 10
