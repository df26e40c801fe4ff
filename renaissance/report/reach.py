"""The section of what arms took until they reached a target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from renaissance.report.blocks import Block, Cell, Column, Paragraph, Section, Table, without_empty
from renaissance.report.blocks import number as number_cell
from renaissance.report.blocks import words as text_cell
from renaissance.report.facts import Ratio, Reach, Results
from renaissance.report.wording import NOTHING, between, count, decimals, fixed, metric_name, short

_MEANS = "FLOPs and samples are means over the runs that reach the target."
_AGAINST = (
    "'Against' is the ratio to the reference arm: the geometric mean over the pretraining seeds in which both reach "
    "it, with its 95% interval; below 1 is less. Seeds in which one of the two does not get there are in no ratio, so "
    "read it beside how many runs do."
)


def reach(results: Results) -> Section:
    """Return a table for each target: who reached it, after how many FLOPs and samples, and that in pairs."""
    targets: dict[tuple[str, str, float], list[Reach]] = {}
    for row in results.reach:
        targets.setdefault((row.stage, row.metric, row.value), []).append(row)
    blocks: list[Block] = []
    for rows in targets.values():
        blocks += [Paragraph(_stated(rows)), _table(rows)]
    if blocks:
        compared = any(row.ratio is not None for row in results.reach)
        blocks.append(Paragraph(f"{_MEANS} {_AGAINST}" if compared else _MEANS, quiet=True))
    return Section("reach", "Compute to reach a target", blocks)


def _stated(rows: Sequence[Reach]) -> str:
    """Return a target in words, and how closely it was looked for."""
    first = rows[0]
    target = fixed(first.value, decimals((first.value,)))
    often = "" if not first.every else f"every {first.every:,} updates" if first.every > 1 else "after every update"
    measured = f", measured {often}" if often else ""
    return f"Target: {metric_name(first.metric)} of {target} or more in {first.stage}{measured}."


def _table(rows: Sequence[Reach]) -> Table:
    reference = next((row.ratio.to for row in rows if row.ratio is not None), "")
    columns = [Column("arm"), Column("reached by", "number")]
    for title in ("FLOPs", "samples"):
        columns += [Column(title, "number"), Column(f"against {reference}", "number"), Column("interval", "number")]
    columns.append(Column("pairs", "number"))
    return without_empty(Table(_caption(rows), columns, [list(_cells(row)) for row in rows]))


def _caption(rows: Sequence[Reach]) -> str:
    return f"What each arm took until {metric_name(rows[0].metric)} first reached the target"


def _cells(row: Reach) -> Iterator[Cell]:
    reached = sum(value is not None for value in row.flops)
    flops, samples = (row.ratio.flops, row.ratio.samples) if row.ratio is not None else (None, None)
    yield text_cell(row.arm)
    yield number_cell(f"{reached} of {len(row.flops)} runs", reached)
    yield from _taken(row.flops, flops)
    yield from _taken(row.samples, samples)
    pairs = None if samples is None else samples.n
    yield number_cell(count(pairs), pairs)


def _taken(values: Sequence[float | None], ratio: Ratio | None) -> Iterator[Cell]:
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known else None
    yield number_cell(short(mean), mean)
    if ratio is None:
        yield from [number_cell(NOTHING, None)] * 2
        return
    yield number_cell(fixed(ratio.mean, 2), ratio.mean)
    yield number_cell(between(ratio.low, ratio.high, 2), ratio.low)
