"""Scores that hypotheses, searches and targets read must be ones that their tasks give, as far as these say which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from renaissance.api import TaskEntry
from renaissance.errors import StudyError, UnknownComponentError
from renaissance.registry import Registry, default_registry
from renaissance.spec import did_you_mean
from renaissance.studies.arms import Design
from renaissance.studies.results import counted


def check_metrics(design: Design, *, registry: Registry | None = None) -> None:
    """Check that every score that is read is one that its task may give.

    Raises:
        StudyError: naming who reads it, and what the task gives.
    """
    known = registry or default_registry()
    for reader, stage, task, metric in _read(design):
        for recipe in (arm.recipes[stage] for arm in design.arms if stage in arm.recipes):
            given = _metrics(recipe, task, known)
            if given and metric not in given:
                listed = f"{', '.join(given)}.{did_you_mean(metric, given)}"
                told = f"the score '{metric}', which '{task}' does not give; it may: {listed}"
                raise StudyError(f"{design.study.name}: {reader} {told}")


def _read(design: Design) -> Iterator[tuple[str, str, str, str]]:
    """Yield who reads a score, in words, the stage, the task, and the name of the score."""
    study = design.study
    for hypothesis in study.hypotheses:
        if not counted(hypothesis.metric):
            stage, *_, task, metric = hypothesis.metric.split("/")
            yield f"the hypothesis '{hypothesis.name}' is about", stage, task, metric
    asked = [("search", study.search.stage, study.search.metric)] if study.search is not None else []
    asked += [("targets", target.stage, target.metric) for target in study.targets]
    for name, stage, place in asked:
        _, task, metric = place.split("/", 2)
        yield f"'{name}' reads", stage, task, metric


def _metrics(recipe: Mapping[str, Any], task: str, registry: Registry) -> tuple[str, ...]:
    """Return the scores that a task of a recipe says that it may give; none of a task that is not the recipe's."""
    named = (name for name in (*recipe["tasks"], *recipe["evaluation"]["tasks"]) if name.rpartition(":")[2] == task)
    try:
        entry = registry.find("task", next(named, task)).entry
    except UnknownComponentError:
        return ()
    return entry.metrics if isinstance(entry, TaskEntry) else ()
