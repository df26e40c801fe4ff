"""Labels that a recipe leaves to the data: those of the training items, from then on options of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from renaissance.api import Item
from renaissance.errors import DataError
from renaissance.plans import TaskPlan


def with_labels_of(items: Iterable[Item], plans: Mapping[str, TaskPlan]) -> dict[str, TaskPlan]:
    """Return the tasks, each whose option `labels` is null with those of the training items.

    Raises:
        DataError: these items have fewer than two labels for it.
    """
    return {name: _labelled(plan, items) if leaves_labels(plan) else plan for name, plan in plans.items()}


def with_labels_as_saved(plan: TaskPlan, saved: TaskPlan) -> TaskPlan:
    """Return a task with the labels of its saved head, where its own option `labels` is null."""
    return _with(plan, getattr(saved.options, "labels", None)) if leaves_labels(plan) else plan


def leaves_labels(plan: TaskPlan) -> bool:
    """Return whether a task takes its labels from the data, and they are not known yet."""
    return plan.entry.labels_of is not None and getattr(plan.options, "labels", None) is None


def _labelled(plan: TaskPlan, items: Iterable[Item]) -> TaskPlan:
    assert plan.entry.labels_of is not None, "`leaves_labels` says so"
    labels = plan.entry.labels_of(plan.options, items)
    if labels is not None and len(labels) < 2:
        has = f"only the label '{labels[0]}'" if labels else "no label"
        raise DataError(
            f"'{plan.entry.name}' takes its labels from the training items, and they have {has} for it. Give the "
            "option 'labels', say where labels stand, or lower 'minimum' where the task has it."
        )
    return _with(plan, labels)


def _with(plan: TaskPlan, labels: Any) -> TaskPlan:
    return replace(plan, options=plan.options.model_copy(update={"labels": labels}))
