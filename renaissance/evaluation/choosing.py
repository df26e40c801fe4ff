"""Which tasks measure a model on some data: those that are asked for, or those that are for such data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from renaissance.api import TaskEntry
from renaissance.assemble import Assembly
from renaissance.components import checked_options
from renaissance.errors import CapabilityError, SpecError, UnknownComponentError
from renaissance.registry import Registry, load_factory
from renaissance.spec import shown

# Names of tasks, or names with the options of those that have nothing to train.
Asked = Sequence[str] | Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Measure:
    """A task that measures a model, and its entry."""

    entry: TaskEntry
    task: Any


def chosen_measures(
    assembly: Assembly, asked: Asked | None, *, layout: str | None, registry: Registry
) -> dict[str, Measure]:
    """Return the tasks named, or all that measure this model on data of a layout (None: images with captions).

    A task that has nothing to train measures every model that has the tasks which it needs.

    Raises:
        CapabilityError: a task cannot measure this model, some are on items and others on images with captions, or
            none is for such data.
        SpecError: an option is wrong, or given to a task that was trained.
    """
    if asked:
        uses = asked if isinstance(asked, Mapping) else {name: {} for name in asked}
        named = (_named(name, options, assembly, registry) for name, options in uses.items())
        found = {entry.name: Measure(entry, task) for entry, task in named}
        kinds = {measure.entry.data for measure in found.values()}
        if len(kinds) > 1:
            raise CapabilityError(
                f"Of {', '.join(found)} some are on items with labels, and others on images with captions; measure "
                "them one after the other."
            )
        return found
    found = {measure.entry.name: measure for measure in _fitting(assembly, layout, registry)}
    if not found:
        where = "images with captions" if layout is None else f"'{layout}'"
        raise CapabilityError(
            f"None of this model's tasks can be measured on {where}. It was trained for: "
            f"{', '.join(assembly.plan.tasks) or 'nothing'}. Add 'itm', 'itc' with 'retrieval', or the task of these "
            "data, to its recipe."
        )
    return found


def _named(name: str, options: Mapping[str, Any], assembly: Assembly, registry: Registry) -> tuple[TaskEntry, Any]:
    plan = assembly.plan.tasks.get(name)
    if plan is not None and plan.entry.trains and options:
        raise SpecError(f"'{shown(name)}' has the options with which it was trained; leave them out.")
    if plan is not None and plan.entry.evaluates and not options:
        return plan.entry, assembly.tasks[name]
    try:
        entry = cast(TaskEntry, registry.find("task", name).entry)
    except UnknownComponentError:
        entry = None
    if entry is not None and not entry.trains:
        missing = _missing(entry, assembly)
        if not missing:
            return entry, _checked(entry, options, assembly)
        raise CapabilityError(
            f"'{name}' needs a model that was trained for {missing}, and this one was for: "
            f"{', '.join(assembly.plan.tasks) or 'nothing'}. Add it to the model's recipe."
        )
    known = ", ".join(name for name, task in assembly.plan.tasks.items() if task.entry.evaluates) or "none"
    raise CapabilityError(
        f"This model cannot be measured by '{shown(name)}'; it can by: {known}. Add the task to its recipe."
    )


def _fitting(assembly: Assembly, layout: str | None, registry: Registry) -> Iterator[Measure]:
    """Yield what measures this model on a layout; one that no task on items is for holds images with captions.

    The texts of others are questions, sentences or choices, and no captions that could be retrieved.
    """
    own = [(plan.entry, assembly.tasks[name]) for name, plan in assembly.plan.tasks.items() if plan.entry.evaluates]
    if layout is not None:
        known = [cast(TaskEntry, component.entry) for component in registry.components("task")]
        found = [Measure(entry, task) for entry, task in own if _is_for(entry, layout)]
        for entry in known:
            probe = not entry.trains and layout in entry.layouts and entry.name not in assembly.plan.tasks
            if probe and not _missing(entry, assembly):
                found.append(Measure(entry, _built(entry, assembly)))
        if found or any(layout in entry.layouts for entry in known):
            yield from found
            return
    yield from (Measure(entry, task) for entry, task in own if entry.data == "captions")


def _is_for(entry: TaskEntry, layout: str) -> bool:
    return entry.data == "items" and (layout in entry.layouts or not entry.layouts)


def _missing(entry: TaskEntry, assembly: Assembly) -> str:
    """Return which tasks a model lacks for this one, in words; nothing where it has them."""
    lacks = [name for name in entry.needs if name not in assembly.plan.tasks]
    if entry.needs_any and not set(entry.needs_any) & set(assembly.plan.tasks):
        lacks.append(" or ".join(entry.needs_any))
    return " and ".join(f"'{name}'" for name in lacks)


def _checked(entry: TaskEntry, options: Mapping[str, Any], assembly: Assembly) -> Any:
    """Return a task that has nothing to train.

    Raises:
        SpecError: an option is wrong.
        CapabilityError: no options are given, and those that it has by itself do not fit the model.
    """
    checked = checked_options(entry, options, of=entry.name)
    try:
        entry.check(checked, frozenset(assembly.plan.tasks))
    except SpecError as error:
        if options:
            raise
        raise CapabilityError(
            f"{error} Give its options to the evaluation, or write them in the model's recipe."
        ) from None
    return load_factory(entry)(checked, model=assembly.encoder.facts())


def _built(entry: TaskEntry, assembly: Assembly) -> Any:
    return load_factory(entry)(checked_options(entry, {}, of=entry.name), model=assembly.encoder.facts())
