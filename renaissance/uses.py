"""The tasks of a recipe as a plan knows them: which are trained, which are only measured, and with what options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from renaissance.api import TaskEntry
from renaissance.errors import SpecError
from renaissance.recipe import Recipe
from renaissance.recipe.training import TaskUse
from renaissance.registry import Registry
from renaissance.spec import shown


@dataclass(frozen=True, slots=True)
class TaskSelection:
    """Tasks by the names that a plan gives them: 'plugin:itm' and 'renaissance:itm' are both 'itm' there.

    trained: those with a weight above 0. measured: those of `evaluation.tasks`. options: of all of them, by the
    qualified names that `resolve` takes.
    """

    trained: Mapping[str, TaskUse]
    measured: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Mapping[str, Any]]

    def named(self, recipe: Recipe) -> Recipe:
        """Return the recipe with these names, and without the tasks of weight 0."""
        evaluation = recipe.evaluation.model_copy(update={"tasks": dict(self.measured)})
        return recipe.model_copy(update={"tasks": dict(self.trained), "evaluation": evaluation})


def reads_items(tasks: TaskSelection, registry: Registry) -> bool:
    """Return whether these tasks are on items, and not on images with captions.

    Raises:
        SpecError: some are on these, others on those.
    """
    kinds: dict[str, str] = {}
    for name in tasks.options:
        entry = cast(TaskEntry, registry.find("task", name).entry)
        kinds.setdefault(entry.data, entry.name)
    if len(kinds) > 1:
        raise SpecError(
            f"'{kinds['items']}' is on items with labels, and '{kinds['captions']}' on images with captions; train "
            "and measure them in recipes of their own."
        )
    return "items" in kinds


def select_tasks(recipe: Recipe, registry: Registry) -> TaskSelection:
    """Return the tasks of a recipe.

    Raises:
        SpecError: a task is unknown, stands there twice, or has options in two places.
    """
    trained: dict[str, TaskUse] = {}
    measured: dict[str, Mapping[str, Any]] = {}
    options: dict[str, Mapping[str, Any]] = {}
    weightless: dict[str, str] = {}
    for written, use in recipe.tasks.items():
        component = registry.find("task", written)
        name = component.entry.name
        if name in trained or name in weightless:
            raise SpecError(f"The task '{shown(written)}' stands twice under 'tasks'; keep one.")
        if use.weight > 0:
            trained[name], options[component.qualified] = use, use.options
        else:
            weightless[name] = written
    for written, given in recipe.evaluation.tasks.items():
        component = registry.find("task", written)
        name = component.entry.name
        if given and (name in trained or name in weightless):
            raise SpecError(f"The options of '{name}' stand under 'tasks'; leave evaluation.tasks.{name} empty.")
        measured[name] = given
        if name not in trained:
            options[component.qualified] = given
    return TaskSelection(trained, measured, options)
