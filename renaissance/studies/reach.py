"""What arms took until their validation first reached a target, and that against the reference arm, in pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from renaissance.studies.compute import FLOPS
from renaissance.studies.curves import an_update, read_series
from renaissance.studies.design import Target
from renaissance.studies.results import Finished, Results
from renaissance.studies.statistics.paired import estimate

FIGURES = {"flops": FLOPS["as_run"], "samples": "samples"}
Rows = Sequence[Sequence[float | None]]


def reach(results: Results) -> list[dict[str, Any]]:
    """Return for each target of the study and each arm what its runs took until their validation first reached it.

    'flops' and 'samples': by run in the order of the seeds; None where a run did not reach it, or is not done. FLOPs
    are those of training, in proportion to the updates; both are as exact as the stage is measured often, 'every' so
    many updates. 'ratio': against the study's reference arm; None where it names none, or this is it.
    """
    study, found = results.design.study, []
    for target in study.targets:
        taken = {arm: _taken(results, arm, target) for arm in _measured(results, target)}
        for arm, rows in taken.items():
            reference = None if arm == study.reference else taken.get(study.reference or "")
            found.append(
                {
                    "arm": arm,
                    "stage": target.stage,
                    "metric": target.metric,
                    "value": target.value,
                    "every": results.design.arm(arm).recipes[target.stage]["evaluation"]["every"],
                    **{figure: [value for row in by_seed for value in row] for figure, by_seed in rows.items()},
                    "ratio": None if reference is None else {"to": study.reference, **_ratios(rows, reference)},
                }
            )
    return found


def _measured(results: Results, target: Target) -> list[str]:
    return [arm.name for arm in results.design.arms if target.stage in arm.recipes]


def _taken(results: Results, arm: str, target: Target) -> dict[str, Rows]:
    """Return by figure what the runs of an arm took, [P][F]."""
    rows = results.rows(arm, target.stage)
    return {
        figure: [[_until(results.done.get(run), target, of_ledger) for run in row] for row in rows]
        for figure, of_ledger in FIGURES.items()
    }


def _until(run: Finished | None, target: Target, figure: str) -> float | None:
    step = None if run is None else _first(run, target)
    rate = None if run is None or step is None else an_update(run, figure)
    return None if rate is None or step is None else rate * step


def _first(run: Finished, target: Target) -> int | None:
    """Return the first update after which a run's validation reached a target."""
    measured = read_series(run.folder).get(target.metric, {})
    return min((step for step, value in measured.items() if value >= target.value), default=None)


def _ratios(own: Mapping[str, Rows], reference: Mapping[str, Rows]) -> dict[str, Any]:
    return {figure: _ratio(own[figure], reference[figure]) for figure in FIGURES}


def _ratio(own: Rows, reference: Rows) -> dict[str, Any] | None:
    """Return the geometric mean over pretraining seeds of what an arm took against what the reference took.

    Of seeds in which all runs of both got there; 'low' and 'high' are None with one such seed, and all is with none.
    """
    logs = [
        sum(map(math.log, mine)) / len(mine) - sum(map(math.log, theirs)) / len(theirs)
        for mine, theirs in zip(map(_whole, own), map(_whole, reference), strict=True)
        if mine and theirs
    ]
    if not logs:
        return None
    if len(logs) == 1:
        return {"mean": math.exp(logs[0]), "low": None, "high": None, "n": 1}
    told = estimate(logs)
    return {"mean": math.exp(told.mean), "low": math.exp(told.low), "high": math.exp(told.high), "n": told.n}


def _whole(row: Sequence[float | None]) -> list[float]:
    """Return what the runs of a seed took; none where one of them did not get there."""
    known = [value for value in row if value is not None]
    return known if len(known) == len(row) else []
