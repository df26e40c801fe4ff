"""Which rules a component must hold: chosen by its kind, and by what its entry declares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from renaissance.api import BackboneEntry, Entry, FusionHeadEntry
from renaissance.registry import Component, Registry
from renaissance.testing import backbone_rules, backbones, entry_rules, fusion_rules, shared_rules, task_rules
from renaissance.testing.benches import Bench, backbone_trial, fusion_trial, subject_of
from renaissance.testing.items import Example
from renaissance.testing.task_trials import TaskTrial


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule by its name, what it says, and the function that checks it on a component.

    check raises ConformanceError where the component breaks the rule, and NotApplicable where it has nothing to say.
    """

    name: str
    says: str
    check: Callable[[Any], None]


def rules_for(entry: Entry) -> Iterator[Rule]:
    """Yield the rules for an entry, in the order in which they are told."""
    for table in _tables(entry):
        for name, check in table.items():
            yield Rule(name, _says(check), check)


def all_rules() -> dict[str, dict[str, str]]:
    """Return what each rule says, by name, for each kind of component; first those for all."""
    modules = "backbones and fusion heads"
    tables = {"all": ENTRIES, modules: MODULES, "backbones": BACKBONES, "fusion heads": FUSION_HEADS, "tasks": TASKS}
    return {kind: {name: _says(check) for name, check in table.items()} for kind, table in tables.items()}


def _says(check: Callable[[Any], None]) -> str:
    return " ".join((check.__doc__ or "").split("\n\n")[0].split())


def bench_of(component: Component, registry: Registry, example: Example | None = None) -> Bench:
    """Return where a component is built and tried; example: what a task is tried on."""
    match component.entry:
        case BackboneEntry():
            return Bench(component, registry, backbone_trial(component.entry))
        case FusionHeadEntry():
            return Bench(component, registry, fusion_trial(component.entry))
    return Bench(component, registry, TaskTrial(component, registry, example))


Table = Mapping[str, Callable[[Any], None]]


def _on_subject(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a check of a bench from one of the backbone that it builds."""

    def on_bench(bench: Bench) -> None:
        check(subject_of(bench))

    on_bench.__doc__ = check.__doc__
    return on_bench


def _on_trial(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a check of a bench from one of how its task is tried."""

    def on_bench(bench: Bench) -> None:
        check(bench.trial)

    on_bench.__doc__ = check.__doc__
    return on_bench


ENTRIES: Table = entry_rules.RULES
MODULES: Table = shared_rules.RULES
BACKBONES: Table = {
    **entry_rules.BACKBONE_RULES,
    **{name: _on_subject(check) for name, check in backbones.CHECKS.items()},
    **{name: _on_subject(check) for name, check in backbone_rules.RULES.items()},
}
FUSION_HEADS: Table = fusion_rules.RULES
TASKS: Table = {name: _on_trial(check) for name, check in task_rules.RULES.items()}


def _tables(entry: Entry) -> list[Table]:
    match entry:
        case BackboneEntry():
            absent = {"grid order"} if entry.modality == "text" else set()
            return [ENTRIES, {name: check for name, check in BACKBONES.items() if name not in absent}, MODULES]
        case FusionHeadEntry():
            return [ENTRIES, FUSION_HEADS, MODULES]
    return [ENTRIES, TASKS]
