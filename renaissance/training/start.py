"""Where a training starts: a spec that is built, or a saved model that is changed as the recipe declares."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from renaissance.assemble import Assembly, assemble, begin_as, build_tasks
from renaissance.container import load
from renaissance.errors import SpecError
from renaissance.evaluation.splits import SplitScores
from renaissance.hub import download
from renaissance.manifest import model_in
from renaissance.models.freezing import freeze
from renaissance.models.recomputing import recompute
from renaissance.plans import AnyPlan, TaskPlan
from renaissance.recipe import Recipe
from renaissance.recipe.start import SavedStart, Surgery
from renaissance.recipe.training import TaskUse
from renaissance.registry import Registry
from renaissance.resolve import resolve
from renaissance.shorthand import parse_part
from renaissance.spec import PartRule, did_you_mean, shown
from renaissance.toolkit.images import Decoding, ImageProcessor
from renaissance.training.labels import with_labels_as_saved, with_labels_of
from renaissance.training.resizing import resize
from renaissance.trust import trusted
from renaissance.uses import TaskSelection
from renaissance.zoo import shipped


def measured_tasks(plan: AnyPlan) -> list[str]:
    """Return the tasks of a plan that have a score; there may be none."""
    return [name for name, task in plan.tasks.items() if task.entry.evaluates]


def check_primary(recipe: Recipe, plan: AnyPlan, splits: Collection[str]) -> None:
    """Check that the score that counts is one that is measured.

    Raises:
        SpecError: its split or its task is not measured.
    """
    if recipe.evaluation.primary is None:
        return
    split, _, rest = recipe.evaluation.primary.partition("/")
    task, _, metric = rest.partition("/")
    tasks = measured_tasks(plan)
    for what, given, known in (("split", split, splits), ("task", task, tasks)):
        if given not in known:
            names = ", ".join(known) or "none"
            raise SpecError(
                f"evaluation.primary is 'split/task/metric', and the {what} '{shown(given)}' is not measured; "
                f"there are: {names}.{did_you_mean(given, known)}"
            )
    if not metric:
        raise SpecError("evaluation.primary is 'split/task/metric', such as 'test/retrieval/R@10'; name the metric.")


def check_primary_metric(recipe: Recipe, measured: Iterable[SplitScores]) -> None:
    """Check that the metric of the score that counts is among what was measured.

    Raises:
        SpecError: its task has no metric of that name.
    """
    rows = [row for scores in measured for row in scores.rows()]
    if recipe.evaluation.primary is None or not rows:
        return
    split, task, metric = recipe.evaluation.primary.split("/", 2)
    known = [row["name"] for row in rows if (row["split"], row["task"]) == (split, task)]
    if metric not in known:
        raise SpecError(
            f"evaluation.primary: '{task}' has no score '{shown(metric)}'; it has: {', '.join(known)}."
            f"{did_you_mean(metric, known)}"
        )


def start(
    recipe: Recipe, tasks: TaskSelection, registry: Registry, train: Iterable[Any] = ()
) -> tuple[Assembly, dict[str, list[str]]]:
    """Return the model that a recipe starts from, and which tensors were copied, are new, or were dropped.

    train: the training samples, from which tasks take the labels that the recipe leaves open.

    Raises:
        DataError: they have too few labels.
        SpecError: the parts do not fit, or the saved model differs from the recipe in what is not declared.
        ModelFileError: the saved model is damaged.
        HubError: it, or a pretrained tower, cannot be had.
    """
    if isinstance(recipe.start, SavedStart):
        assembly, surgery = _operated(recipe, recipe.start, tasks, registry, train)
    else:
        plan = resolve(recipe.start, tasks.options, registry=registry)
        check_trainable(plan, recipe, tasks)
        check_measurable(plan, tasks, trained=tasks.trained)
        plan = replace(plan, tasks=with_labels_of(train, plan.tasks))
        assembly = assemble(plan, seed=recipe.seed)
        surgery = {"copied": [], "new": sorted(assembly.state_dict()), "dropped": []}
    if recipe.decoding is not None:
        _decode(assembly, recipe.decoding)
    if recipe.gradient_checkpointing:
        recompute(assembly.encoder)
    return assembly, surgery


def _decode(assembly: Assembly, decoding: Decoding) -> None:
    """Make the vision tower's preprocessing decode files in this way.

    Raises:
        SpecError: its preprocessing is not ours, and decodes by itself.
    """
    vision = assembly.encoder.vision
    if not isinstance(vision.processor, ImageProcessor):
        raise SpecError(
            f"The images of this model are prepared by {type(vision.processor).__name__}, which is given whole "
            "pictures; leave 'decoding' out."
        )
    vision.processor = replace(vision.processor, decoding=decoding)


def check_measurable(plan: AnyPlan, tasks: TaskSelection, *, trained: Collection[str]) -> None:
    """Refuse to measure a head that nobody trained, and what cannot be measured.

    Raises:
        SpecError: naming the task.
    """
    for name in tasks.measured:
        entry = plan.tasks[name].entry
        if not entry.evaluates:
            raise SpecError(f"The task '{name}' has no score of its own; leave it out of evaluation.tasks.")
        if entry.trains and name not in trained:
            raise SpecError(f"The head of '{name}' would be measured untrained; add '{name}' to tasks, with a weight.")


def check_trainable(plan: AnyPlan, recipe: Recipe, tasks: TaskSelection) -> None:
    """Refuse tasks that cannot be trained, and batches in which they cannot work.

    Raises:
        SpecError: naming the task.
    """
    for name in tasks.trained:
        entry = plan.tasks[name].entry
        if not entry.trains:
            raise SpecError(f"The task '{name}' is measured and not trained; put it under evaluation.tasks.")
        if entry.needs_negatives and recipe.batch.size // recipe.batch.batches < 2:
            raise SpecError(
                f"The task '{name}' needs other pairs in its batch; give batch.size at least 2 for each part."
            )


def _operated(
    recipe: Recipe, saved: SavedStart, tasks: TaskSelection, registry: Registry, train: Iterable[Any]
) -> tuple[Assembly, dict[str, list[str]]]:
    folder, ours = _saved_folder(saved.model)
    assembly = load(folder, registry=registry if ours else trusted(folder, saved.trust, registry))
    spec, resized = resize(assembly, saved.surgery, recipe.seed)
    spec = spec.model_copy(update={"rules": (*spec.rules, *_rules(saved.surgery))})
    plan = resolve(spec, tasks.options, registry=registry)
    freeze(assembly.encoder, plan.rules, train_mode=plan.spec.as_published.frozen_in_train_mode)
    plan = replace(plan, tasks=_kept_options(plan.tasks, assembly.plan.tasks, tasks.trained))
    check_trainable(plan, recipe, tasks)
    check_measurable(plan, tasks, trained={*tasks.trained, *assembly.plan.tasks})
    _check_declared(saved.surgery, assembly, plan)
    plan = replace(plan, tasks=with_labels_of(train, plan.tasks))
    before = set(assembly.state_dict()) - set(resized)
    assembly.encoder.set_slots(max(task.entry.slots for task in plan.tasks.values()))
    new = assemble_tasks(plan, assembly, recipe.seed)
    operated = Assembly(plan, assembly.encoder, new)
    after = set(operated.state_dict())
    return operated, {
        "copied": sorted(before & after),
        "new": sorted(after - before - set(resized)),
        "dropped": sorted(before - after),
        **({"resized": sorted(resized)} if resized else {}),
    }


def _rules(surgery: Surgery) -> list[PartRule]:
    """Return what a surgery thaws, and then freezes."""
    thawed = [PartRule(action="trainable", part=parse_part(part)) for part in surgery.thaw]
    return [*thawed, *(PartRule(action="frozen", part=parse_part(part)) for part in surgery.freeze)]


def assemble_tasks(plan: AnyPlan, old: Assembly, seed: int) -> nn.ModuleDict:
    """Return the tasks of a plan: those of the saved model as they are, the others newly built for its encoder."""
    fresh = replace(plan, tasks={name: task for name, task in plan.tasks.items() if name not in old.tasks})
    built = build_tasks(fresh, old.encoder, seed)
    tasks = nn.ModuleDict({name: old.tasks[name] if name in old.tasks else built[name] for name in plan.tasks})
    begin_as(tasks, plan, fresh.tasks)
    return tasks


def _kept_options(
    plans: Mapping[str, TaskPlan], saved: Mapping[str, TaskPlan], trained: Mapping[str, TaskUse]
) -> dict[str, TaskPlan]:
    """A head that is kept keeps its options; other ones in the recipe are refused, not ignored, but for open labels."""
    kept: dict[str, TaskPlan] = {}
    for name, plan in plans.items():
        old = saved.get(name)
        given = trained[name].options if name in trained else {}
        plan = plan if old is None else with_labels_as_saved(plan, old)
        if old is not None and plan.entry.trains and given and plan.options != old.options:
            raise SpecError(
                f"The saved head of '{name}' was built with other options; leave them out, or drop and add the task."
            )
        kept[name] = plan if old is None or not plan.entry.trains else old
    return kept


def _check_declared(surgery: Surgery, old: Assembly, plan: AnyPlan) -> None:
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
    """Return the folder of a saved model, and whether it is the user's own or a download of the Hub.

    One that ships with renaissance is taken from there, unless a commit or HF_ENDPOINT asks for the Hub.
    """
    place = Path(name).expanduser()
    if place.exists() or name.startswith((".", "/", "~")):
        return model_in(place), True
    repository, _, commit = name.partition("@")
    revision = commit or None
    ships = shipped(repository, revision)
    if ships is not None:
        return ships, True
    return download(repository, revision=revision), False
