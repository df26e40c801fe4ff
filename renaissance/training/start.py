"""Where a training starts: a spec that is built, or a saved model that is changed as the recipe declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from renaissance.assemble import Assembly, assemble, build_tasks
from renaissance.container import load
from renaissance.errors import SpecError
from renaissance.hub import download
from renaissance.manifest import model_in
from renaissance.recipe import Recipe, SavedStart, Surgery
from renaissance.registry import Registry
from renaissance.resolve import Plan, TaskPlan, resolve
from renaissance.spec import shown
from renaissance.trust import trusted


def task_options(recipe: Recipe) -> dict[str, Mapping[str, Any]]:
    """Return the options of every task of a recipe, those to train and those to measure alone.

    Raises:
        SpecError: a task that is trained has other options under `evaluation.tasks`.
    """
    options: dict[str, Mapping[str, Any]] = {name: use.options for name, use in recipe.tasks.items()}
    for name, given in recipe.evaluation.tasks.items():
        if name in options and given:
            raise SpecError(
                f"The options of '{shown(name)}' stand under 'tasks'; leave evaluation.tasks.{shown(name)} empty."
            )
        options.setdefault(name, given)
    return options


def start(recipe: Recipe, registry: Registry) -> tuple[Assembly, dict[str, list[str]]]:
    """Return the model that a recipe starts from, and which tensors were copied, are new, or were dropped.

    Raises:
        SpecError: the parts do not fit, or the saved model differs from the recipe in what is not declared.
        ModelFileError: the saved model is damaged.
        HubError: it, or a pretrained tower, cannot be had.
    """
    options = task_options(recipe)
    if isinstance(recipe.start, SavedStart):
        return _operated(recipe, recipe.start, options, registry)
    plan = resolve(recipe.start, options, registry=registry)
    check_trainable(plan, recipe)
    assembly = assemble(plan, seed=recipe.seed)
    return assembly, {"copied": [], "new": sorted(assembly.state_dict()), "dropped": []}


def check_trainable(plan: Plan, recipe: Recipe) -> None:
    """Refuse tasks that cannot be trained, and batches in which they cannot work.

    Raises:
        SpecError: naming the task.
    """
    for name, use in recipe.tasks.items():
        entry = plan.tasks[name].entry
        if not entry.trains:
            raise SpecError(f"The task '{name}' is measured and not trained; put it under evaluation.tasks.")
        if entry.needs_negatives and recipe.batch.size // recipe.batch.accumulation < 2:
            raise SpecError(
                f"The task '{name}' needs other pairs in its batch; give batch.size at least 2 for each part."
            )
        if entry.fields:
            raise SpecError(
                f"The task '{name}' reads {', '.join(entry.fields)} of the data, which images with captions lack."
            )
        tokenizer = plan.text.facts
        if entry.needs_mask_token and use.weight and tokenizer.vocabulary is None:
            raise SpecError(
                f"The task '{name}' needs a tokenizer with a mask token, which '{plan.text.name}' does not have."
            )


def _operated(
    recipe: Recipe, saved: SavedStart, options: Mapping[str, Mapping[str, Any]], registry: Registry
) -> tuple[Assembly, dict[str, list[str]]]:
    folder, ours = _saved_folder(saved.model)
    assembly = load(folder, registry=registry if ours else trusted(folder, saved.trust, registry))
    plan = resolve(assembly.plan.spec, options, registry=registry)
    plan = replace(plan, tasks=_kept_options(plan.tasks, assembly.plan.tasks, options))
    check_trainable(plan, recipe)
    _check_declared(saved.surgery, assembly, plan)
    new = assemble_tasks(plan, assembly, recipe.seed)
    before = set(assembly.state_dict())
    operated = Assembly(plan, assembly.encoder, new)
    after = set(operated.state_dict())
    return operated, {
        "copied": sorted(before & after),
        "new": sorted(after - before),
        "dropped": sorted(before - after),
    }


def assemble_tasks(plan: Plan, old: Assembly, seed: int) -> nn.ModuleDict:
    """Return the tasks of a plan: those of the saved model as they are, the others newly built for its encoder."""
    fresh = replace(plan, tasks={name: task for name, task in plan.tasks.items() if name not in old.tasks})
    built = build_tasks(fresh, old.encoder, seed)
    return nn.ModuleDict({name: old.tasks[name] if name in old.tasks else built[name] for name in plan.tasks})


def _kept_options(
    plans: Mapping[str, TaskPlan], saved: Mapping[str, TaskPlan], given: Mapping[str, Mapping[str, Any]]
) -> dict[str, TaskPlan]:
    """A head that is kept keeps its options; other ones in the recipe are refused, not ignored."""
    kept: dict[str, TaskPlan] = {}
    for name, plan in plans.items():
        old = saved.get(name)
        if old is not None and plan.entry.trains and given[name] and plan.options != old.options:
            raise SpecError(
                f"The saved head of '{name}' was built with other options; leave them out, or drop and add the task."
            )
        kept[name] = plan if old is None or not plan.entry.trains else old
    return kept


def _check_declared(surgery: Surgery, old: Assembly, plan: Plan) -> None:
    """Compare heads that would be dropped and added with those that the recipe declares."""
    had = {name for name, task in old.plan.tasks.items() if task.entry.trains}
    has = {name for name, task in plan.tasks.items() if task.entry.trains}
    for what, real, declared in (
        ("drop_tasks", had - has, surgery.drop_tasks),
        ("add_tasks", has - had, surgery.add_tasks),
    ):
        if real != set(declared):
            names = ", ".join(sorted(real))
            raise SpecError(
                f"What changes in the saved model is not declared; write 'surgery: {{{what}: [{names}]}}' in 'start'."
            )


def _saved_folder(name: str) -> tuple[Path, bool]:
    """Return the folder of a saved model, and whether it is the user's own or a download of the Hub."""
    place = Path(name).expanduser()
    if place.exists() or name.startswith((".", "/", "~")):
        return model_in(place), True
    repository, _, commit = name.partition("@")
    return download(repository, revision=commit or None), False
