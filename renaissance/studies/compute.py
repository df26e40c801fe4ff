"""What arms took: FLOPs, seconds and memory by stage and in all, and what that saves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from renaissance.studies.results import Finished, Results

ALL = "all"  # the sum over stages
FLOPS = {name: f"flops_{name}" for name in ("as_run", "no_store", "store_built", "nothing_frozen")}
SECONDS = {name: f"seconds_{name}" for name in ("training", "evaluation", "store", "store_built")}
PEAK = "peak_memory_bytes"
Figures = Mapping[str, float | None]


def compute(results: Results) -> list[dict[str, Any]]:
    """Return a row for each arm and stage that has runs done, and one for the sum over its stages.

    Figures are means over the seeds whose runs are done. 'saving' are shares saved against the study's reference arm at
    the same stage; None where it names none, or has no such stage.
    """
    figures = {
        (arm.name, stage): found
        for arm in results.design.arms
        for stage, found in _of_arm(results, arm.name, list(arm.recipes))
    }
    reference = results.design.study.reference
    return [
        {
            "arm": arm,
            "stage": stage,
            "updates": found["updates"],
            "samples": found["samples"],
            **_grouped(found),
            "means over seeds": True,
            "saving": _saving(found, figures.get((reference, stage)) if reference is not None else None),
        }
        for (arm, stage), found in figures.items()
    ]


def _of_arm(results: Results, arm: str, stages: Sequence[str]) -> Iterator[tuple[str, Figures]]:
    """Yield the means of each stage, and their sum where every stage has runs done."""
    found = [(stage, _means(results.finished(arm, stage))) for stage in stages if results.finished(arm, stage)]
    yield from found
    if len(results.design.study.stages) > 1 and len(found) == len(stages):
        yield ALL, _added([means for _, means in found])


def _means(runs: Sequence[Finished]) -> dict[str, float | None]:
    return {name: _over(_mean, [run.ledger[name] for run in runs]) for name in runs[0].ledger}


def _added(stages: Sequence[Figures]) -> dict[str, float | None]:
    return {name: _over(max if name == PEAK else sum, [stage[name] for stage in stages]) for name in stages[0]}


def _mean(known: Sequence[float]) -> float:
    return sum(known) / len(known)


def _over(join: Any, values: Sequence[float | None]) -> float | None:
    """Return the join of values; None where one is not known."""
    known = [value for value in values if value is not None]
    return float(join(known)) if len(known) == len(values) else None


def _grouped(figures: Figures) -> dict[str, Any]:
    return {
        "flops": {name: figures[key] for name, key in FLOPS.items()},
        "seconds": {name: figures[key] for name, key in SECONDS.items()},
        PEAK: figures[PEAK],
    }


def _saving(own: Figures, reference: Figures | None) -> dict[str, Any] | None:
    if reference is None:
        return None
    return _grouped({name: _share(own[name], reference[name]) for name in own})


def _share(own: float | None, reference: float | None) -> float | None:
    return None if own is None or not reference else 1 - own / reference
