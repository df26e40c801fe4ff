"""The sections of measurements: scores, compute, learning curves, where scores vary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from renaissance.report.blocks import Block, Cell, Column, Figure, Folded, Paragraph, Section, Strip, Table
from renaissance.report.blocks import number as number_cell
from renaissance.report.blocks import words as text_cell
from renaissance.report.charts import Spot, compute_plot, curve_plot, variance_plot
from renaissance.report.drawing import Drawing
from renaissance.report.facts import Compute, Curve, Results, Score
from renaissance.report.wording import (
    NOTHING,
    between,
    decimals,
    duration,
    fixed,
    ledger_key,
    metric_name,
    share,
    short,
)
from renaissance.report.wording import memory as memory_text

MOST_PLOTS = 4  # of compute against score
MOST_CURVES = 6  # metrics in the curves of a stage
_FLOPS = {
    "as_run": "as run",
    "no_store": "without the store",
    "store_built": "store charged",
    "nothing_frozen": "nothing frozen",
}
_TRAINED = "trained"
_STAGES = {"all": "all stages"}

# --- scores -----------------------------------------------------------------------------------------------------------


def scores(results: Results) -> Section:
    """Return a table for each score; those that hypotheses are about stand open."""
    asked = {hypothesis.metric for hypothesis in results.hypotheses}
    parts: dict[tuple[str, str], dict[tuple[str, str], list[Score]]] = {}
    for row in results.scores:
        if row.mean is None:  # no seed has all of its runs
            continue
        parts.setdefault((row.stage, row.split), {}).setdefault((row.task, row.metric), []).append(row)
    blocks: list[Block] = []
    for (stage, split), found in parts.items():
        tables: list[Block] = [
            _score_table(results, f"{task} · {metric}", rows) for (task, metric), rows in found.items()
        ]
        seeds = _values_by_seed(results, found)
        if seeds is not None:
            tables.append(seeds)
        stands_open = any(f"{stage}/{split}/{task}/{metric}" in asked for task, metric in found)
        blocks.append(Folded(f"{stage}, {metric_name(split)} split", tables, open=stands_open))
    if blocks:
        intro = "Means over seeds with their intervals, drawn on one scale in each table, which does not begin at 0."
        blocks.insert(0, Paragraph(intro, quiet=True))
    return Section("scores", "Scores", blocks)


def _score_table(results: Results, caption: str, rows: Sequence[Score]) -> Table:
    rows = sorted(rows, key=lambda row: (row.model != _TRAINED, _place(results, row.arm)))
    others = any(row.model != _TRAINED for row in rows)
    places = decimals(value for row in rows for value in (row.mean, row.low, row.high))
    ends = [value for row in rows for value in (row.mean, row.low, row.high) if value is not None]
    columns = [Column("arm"), *([Column("model")] if others else []), Column("mean", "number")]
    columns += [Column("interval", "number"), Column("", "drawn"), Column("sd", "number"), Column("seeds", "number")]
    columns += [Column("chance", "number")]
    cells = [_score_row(row, others, places, min(ends), max(ends)) for row in rows]
    return Table(caption.replace("_", " "), columns, cells)


def _score_row(row: Score, others: bool, places: int, least: float, most: float) -> list[Cell]:
    return [
        text_cell(row.arm),
        *([text_cell(row.model)] if others else []),
        number_cell(fixed(row.mean, places), row.mean),
        number_cell(between(row.low, row.high, places), row.low),
        Cell("", strip=_strip(row, least, most)),
        number_cell(fixed(row.sd, max(places, 2)), row.sd),
        number_cell(_seeds(row), len(row.values)),
        number_cell(fixed(row.chance, places), row.chance),
    ]


def _strip(row: Score, least: float, most: float) -> Strip:
    """Return an interval in percent of the width, with a little air at both ends."""
    width = (most - least) or 1.0

    def at(value: float) -> float:
        return round(4 + 92 * (value - least) / width, 1)

    mean = least if row.mean is None else row.mean
    low, high = (mean if end is None else end for end in (row.low, row.high))
    return Strip(at(low), at(mean), at(high))


def _seeds(row: Score) -> str:
    """Return how many pretraining seeds there are, and fine-tuning seeds in each where those are more than one."""
    if not row.values:
        return NOTHING
    inner = {len(values) for values in row.values}
    return f"{len(row.values)}" if inner == {1} else f"{len(row.values)} × {' or '.join(map(str, sorted(inner)))}"


def _values_by_seed(results: Results, found: dict[tuple[str, str], list[Score]]) -> Folded | None:
    rows = [row for metric in found.values() for row in metric if row.values]
    if not rows:
        return None
    most = max(len(row.values) for row in rows)
    columns = [Column("arm"), Column("score"), Column("model")]
    columns += [Column(f"seed {place + 1}", "number") for place in range(most)]
    nested = any(len(values) > 1 for row in rows for values in row.values)
    caption = "A column for each pretraining seed" + ("; fine-tuning seeds in it apart by strokes" if nested else "")
    rows = sorted(rows, key=lambda row: (row.task, row.metric, row.model != _TRAINED, _place(results, row.arm)))
    return Folded("values by seed", [Table(caption, columns, [_seed_row(row, most) for row in rows])])


def _seed_row(row: Score, most: int) -> list[Cell]:
    places = max(2, decimals(value for values in row.values for value in values))
    cells = [Cell(" / ".join(fixed(value, places) for value in values), _mean(values)) for values in row.values]
    names = [row.arm, f"{row.task} · {row.metric}", row.model]
    return [*map(text_cell, names), *cells, *[number_cell(NOTHING, None)] * (most - len(cells))]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


# --- compute ----------------------------------------------------------------------------------------------------------


def compute(results: Results) -> Section:
    """Return compute against score, and what each stage took."""
    blocks: list[Block] = [Figure(plot) for plot in _compute_plots(results)]
    if results.compute:
        compared = any(row.saving is not None for row in results.compute)
        saved = " Saved: against the reference arm; a negative share is more." if compared else ""
        blocks += [
            _flops_table(results.compute),
            _time_table(results.compute),
            Paragraph(f"Means over seeds.{saved}", quiet=True),
        ]
    return Section("compute", "Compute", blocks)


def _compute_plots(results: Results) -> Iterator[Drawing]:
    asked = dict.fromkeys(hypothesis.metric for hypothesis in results.ranked if not ledger_key(hypothesis.metric))
    order = [arm.name for arm in results.arms]
    for place, metric in enumerate(list(asked)[:MOST_PLOTS]):
        spots = list(_spots(results, metric))
        if len(spots) > 1:
            yield compute_plot(metric, spots, order, name=f"compute-{place + 1}")


def _spots(results: Results, metric: str) -> Iterator[Spot]:
    """Yield the arms whose score and FLOPs, of its stage and those before it, are known."""
    stage, stages = metric.split("/")[0], [stage.name for stage in results.stages]
    upto = stages[: stages.index(stage) + 1] if stage in stages else []
    for row in results.scores:
        names = f"{row.stage}/{row.split}/{row.task}/{row.metric}", row.model
        before = [found for found in results.compute if found.arm == row.arm and found.stage in upto]
        taken = [found.flops.get("as_run") for found in before]
        known = [flops for flops in taken if flops is not None]
        if names == (metric, _TRAINED) and row.mean is not None and known and len(known) == len(taken):
            yield Spot(row.arm, sum(known), row.mean, row.low, row.high)


def _flops_table(rows: Sequence[Compute]) -> Table:
    keys = [key for key in _FLOPS if any(row.flops.get(key) is not None for row in rows)]
    saved = [key for key in keys if any(row.saving and row.saving.flops.get(key) is not None for row in rows)]
    saved = [key for key in saved if key != "nothing_frozen"]  # which no arm is run as
    columns = [Column("arm"), Column("stage"), Column("samples", "number")]
    for key in keys:
        columns += [Column(_FLOPS[key], "number"), *([Column("saved", "number")] if key in saved else [])]
    found = []
    for row in rows:
        cells = [text_cell(row.arm), text_cell(_STAGES.get(row.stage, row.stage))]
        cells.append(number_cell(short(row.samples), row.samples))
        for key in keys:
            cells.append(number_cell(short(row.flops.get(key)), row.flops.get(key)))
            if key in saved:
                cells.append(_saved(row.saving.flops.get(key) if row.saving else None))
        found.append(cells)
    return Table("FLOPs of training", columns, found)


def _time_table(rows: Sequence[Compute]) -> Table:
    keys = [key for key in ("training", "store", "evaluation") if any(row.seconds.get(key) is not None for row in rows)]
    saved = any(row.saving and row.saving.seconds.get("training") is not None for row in rows)
    spared = any(row.saving and row.saving.peak_memory_bytes is not None for row in rows)
    columns = [Column("arm"), Column("stage")]
    for key in keys:
        columns += [Column(key, "number"), *([Column("saved", "number")] if key == "training" and saved else [])]
    columns += [Column("peak memory", "number"), *([Column("saved", "number")] if spared else [])]
    found = []
    for row in rows:
        cells = [text_cell(row.arm), text_cell(_STAGES.get(row.stage, row.stage))]
        for key in keys:
            cells.append(number_cell(duration(row.seconds.get(key)), row.seconds.get(key)))
            if key == "training" and saved:
                cells.append(_saved(row.saving.seconds.get(key) if row.saving else None))
        cells.append(number_cell(memory_text(row.peak_memory_bytes), row.peak_memory_bytes))
        found.append([*cells, *([_saved(row.saving.peak_memory_bytes if row.saving else None)] if spared else [])])
    return Table("Time and memory", columns, found)


def _saved(value: float | None) -> Cell:
    return number_cell(share(value), value)


# --- curves, variance -------------------------------------------------------------------------------------------------


def curves(results: Results) -> Section:
    """Return the learning curves, a figure for each stage; what targets are about comes first."""
    order, blocks = [arm.name for arm in results.arms], list[Block]()
    targets = {(row.stage, row.metric) for row in results.reach}
    stages: dict[str, dict[str, list[Curve]]] = {}
    for curve in results.curves:
        if curve.points:
            stages.setdefault(curve.stage, {}).setdefault(curve.metric, []).append(curve)
    for place, (stage, metrics) in enumerate(stages.items()):
        names = sorted(metrics, key=lambda metric: ((stage, metric) not in targets, metric.startswith("loss/")))
        kept = {metric: metrics[metric] for metric in names[:MOST_CURVES]}
        blocks.append(Figure(curve_plot(stage, kept, order, name=f"curves-{place + 1}")))
        if len(names) > MOST_CURVES:
            others = ", ".join(map(metric_name, names[MOST_CURVES:]))
            blocks.append(Paragraph(f"Not drawn here, and in the metrics.jsonl of the runs: {others}.", quiet=True))
    return Section("curves", "Learning curves", blocks)


def variance(results: Results) -> Section:
    """Return what scores vary with."""
    rows = results.variance
    if not rows:
        return Section("variance", "Where scores vary")
    columns = [Column("arm"), Column("score"), Column("pretraining seed", "number")]
    columns += [Column("fine-tuning seed", "number"), Column("items", "number"), Column("sd, all", "number")]
    places = decimals(row.sd for row in rows)
    cells = [
        [
            text_cell(row.arm),
            text_cell(metric_name(row.metric)),
            *(number_cell(share(part), part) for part in (row.pretraining, row.finetuning, row.items)),
            number_cell(fixed(row.sd, places), row.sd),
        ]
        for row in rows
    ]
    table = Table("Shares of the variance of a score", columns, cells)
    return Section("variance", "Where scores vary", [Figure(variance_plot(rows)), table])


def _place(results: Results, arm: str) -> int:
    return [known.name for known in results.arms].index(arm)
