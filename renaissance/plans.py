"""What `renaissance.resolve` makes of a spec: entries that exist, options that are checked. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from renaissance.api import BackboneEntry, Capabilities, FusionHeadEntry, Options, TaskEntry
from renaissance.spec import OneTowerSpec, Rule, Start, TwoTowerSpec


@dataclass(frozen=True, slots=True)
class TowerPlan:
    """A backbone that exists, its checked options, what is known of it, and what it and its embeddings start from."""

    name: str
    plugin: str
    entry: BackboneEntry
    options: Options
    facts: Capabilities
    weights: Start
    embeddings: Start

    @property
    def pretrained(self) -> bool:
        """Whether anything in it starts as it was pretrained; shuffled weights know nothing any more."""
        return "pretrained" in (self.weights, self.embeddings)

    @property
    def start(self) -> str:
        """What it starts from, in words."""
        return self.weights + (f", embeddings {self.embeddings}" if self.embeddings != self.weights else "")


@dataclass(frozen=True, slots=True)
class FusionPlan:
    """A fusion head that exists, with its checked options."""

    name: str
    plugin: str
    entry: FusionHeadEntry
    options: Options


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """A task that exists, with its checked options."""

    name: str
    plugin: str
    entry: TaskEntry
    options: Options


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked assembly. `spec` is canonical: resolving it again gives the same plan.

    rules: what is frozen, trained and adapted, later ones win; tasks in the order in which they run.
    plugins: the third-party plugins that it needs, with their distributions.
    """

    spec: TwoTowerSpec
    vision: TowerPlan
    text: TowerPlan
    fusion: FusionPlan
    rules: tuple[Rule, ...]
    tasks: Mapping[str, TaskPlan]
    plugins: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OneTowerPlan:
    """A checked one-tower assembly; `donor` is None where the embeddings of the other modality are new."""

    spec: OneTowerSpec
    base: TowerPlan
    donor: TowerPlan | None
    rules: tuple[Rule, ...]
    tasks: Mapping[str, TaskPlan]
    plugins: Mapping[str, str]


AnyPlan = Plan | OneTowerPlan
