"""Learning curves of arms: losses and validation figures over updates, samples and FLOPs, means over seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from renaissance.studies.results import Finished, Results

METRICS = "metrics.jsonl"
SHOWN = ("loss/", "validation/")
MOST_POINTS = 60

Series = dict[str, dict[int, float]]


def read_series(folder: Path) -> Series:
    """Return the figures of a run's training by metric and update; none where it noted none."""
    path = folder / METRICS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found: Series = {}
    for line in lines:
        row = json.loads(line)
        for metric, value in row.items():
            if metric.startswith(SHOWN):
                found.setdefault(metric, {})[int(row["step"])] = float(value)
    return found


def an_update(run: Finished, figure: str) -> float | None:
    """Return how much of a ledger's figure each update of a run took, on average."""
    total, updates = run.ledger[figure], run.ledger["updates"]
    return None if total is None or not updates else total / updates


def curves(results: Results) -> list[dict[str, Any]]:
    """Return the curves of each arm and stage, of the updates at which all runs that are done were measured."""
    read = {name: read_series(run.folder) for name, run in results.done.items()}
    return [
        {"arm": arm.name, "stage": stage, "metric": metric, "points": points}
        for arm in results.design.arms
        for stage in arm.recipes
        for metric, points in _of_stage(results, read, arm.name, stage)
    ]


def _of_stage(
    results: Results, read: Mapping[str, Series], arm: str, stage: str
) -> Iterator[tuple[str, list[list[float | None]]]]:
    ids = [run for row in results.rows(arm, stage) for run in row if run in results.done]
    runs = [results.done[run] for run in ids]
    samples, flops = (_mean_of([an_update(run, name) for run in runs]) for name in ("samples", "flops_as_run"))
    for metric in dict.fromkeys(metric for run in ids for metric in read[run]):
        series = [read[run].get(metric, {}) for run in ids]
        steps = sorted(set.intersection(*(set(one) for one in series)))
        if steps:
            yield metric, [_point(step, samples, flops, [one[step] for one in series]) for step in _thinned(steps)]


def _point(step: int, samples: float | None, flops: float | None, values: Sequence[float]) -> list[float | None]:
    """Return [step, samples, flops, mean, lowest, highest]."""
    passed = [None if rate is None else rate * step for rate in (samples, flops)]
    return [step, *passed, sum(values) / len(values), min(values), max(values)]


def _thinned(steps: Sequence[int]) -> list[int]:
    """Return at most `MOST_POINTS` of the updates, evenly apart, the first and the last among them."""
    if len(steps) <= MOST_POINTS:
        return list(steps)
    last = len(steps) - 1
    return [steps[round(number * last / (MOST_POINTS - 1))] for number in range(MOST_POINTS)]


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
