"""From names in a spec to components: their entries, their options checked, and what is known of them. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from pydantic import ValidationError

from renaissance.api import (
    Architecture,
    BackboneEntry,
    Capabilities,
    Entry,
    FusionHeadEntry,
    Modality,
    Options,
    Output,
    TaskEntry,
    TowerNeeds,
    Unknown,
)
from renaissance.errors import PluginError, RenaissanceError, SpecError, UnknownComponentError
from renaissance.plans import FusionPlan, TaskPlan, TowerPlan
from renaissance.registry import Component, Registry
from renaissance.rules import Starts, layer_range
from renaissance.spec import LIBRARIES, FusionSpec, Layers, TowerSpec, did_you_mean, explain, shown

TaskUses = Mapping[str, Mapping[str, Any]]


def tower_plan(
    tower: TowerSpec, modality: Modality, starts: Starts, registry: Registry, *, part: str = ""
) -> TowerPlan:
    """Return the plan of a backbone that encodes a modality; `part`: what rules call it, if not by its modality.

    Raises:
        SpecError: an option or a range of layers is wrong, or it has no pretrained weights, or no embeddings.
        UnknownComponentError: there is no such backbone.
    """
    component, extra = _backbone(tower.name, modality, registry)
    entry = cast(BackboneEntry, component.entry)
    if entry.library:
        _check_library(tower, entry, extra)
    given = {**tower.options, **extra}
    options = checked_options(entry, given, of=tower.name)
    if tower.layers is not None:
        given["layers"] = _first(tower.layers, entry, described(component, options), tower.name)
        options = checked_options(entry, given, of=tower.name)
    facts = described(component, options)
    if set(starts) != {"random"} and facts.pretrained is False:
        raise SpecError(_no_weights(tower.name, component, part or modality))
    if starts.embeddings != starts.weights and facts.layered is False:
        raise SpecError(
            f"'{tower.name}' does not list its embeddings, so they start as the rest of it; say '{starts.weights} "
            f"{part or modality}' alone."
        )
    name = tower.name if entry.library else component.qualified
    return TowerPlan(name, component.plugin, entry, options, facts, starts.weights, starts.embeddings)


def _no_weights(name: str, component: Component, part: str) -> str:
    """Return why a backbone has no pretrained weights: it never has, or it has them of other sizes."""
    entry = component.entry
    if not getattr(entry, "library", False) and described(component, entry.options()).pretrained is True:
        return (
            f"'{shown(name)}' has pretrained weights of its default sizes alone, or of fewer layers; leave the other "
            f"sizes out, or say 'random {part}'."
        )
    return f"'{shown(name)}' has no pretrained weights; say 'random {part}'."


def _backbone(name: str, modality: Modality, registry: Registry) -> tuple[Component, dict[str, Any]]:
    library, _, model = name.partition(":")
    if library in LIBRARIES and model:
        model, _, revision = model.partition("@")
        component = _find_backbone(library, modality, registry, name)
        return component, {"model": model, "revision": revision or None}
    return _find_backbone(name, modality, registry, name), {}


def _check_library(tower: TowerSpec, entry: BackboneEntry, named: Mapping[str, Any]) -> None:
    """Refuse a library without a model, and a model or revision that the name does not say."""
    twice = next((key for key in ("model", "revision") if key in tower.options), None)
    if twice is not None or not named:
        raise SpecError(
            f"'{entry.name}' is a library; a model of it, and its revision, stand in the name: "
            f"'{entry.name}:model@revision'."
        )


def _find_backbone(name: str, modality: Modality, registry: Registry, written: str) -> Component:
    other: Modality = "text" if modality == "vision" else "vision"
    try:
        return registry.find("backbone", name, modality)
    except UnknownComponentError as unknown:
        try:
            component = registry.find("backbone", name, other)
        except UnknownComponentError:
            raise unknown from None
    if written != name:
        raise SpecError(
            f"The library '{name}' gives {other} backbones only, and '{shown(written)}' is in the {modality} tower."
        )
    raise SpecError(
        f"'{component.qualified}' encodes {'text' if other == 'text' else 'images'}, but it is in the {modality} "
        "tower. The vision backbone comes first: 'vit-base + bert-base'."
    )


def fusion_plan(fusion: FusionSpec, registry: Registry) -> FusionPlan:
    """Return the plan of a fusion head.

    Raises:
        SpecError: an option is wrong.
        UnknownComponentError: there is no such head.
    """
    component = registry.find("fusion-head", fusion.name)
    entry = cast(FusionHeadEntry, component.entry)
    options = checked_options(entry, fusion.options, of=fusion.name)
    entry.check(options)
    return FusionPlan(component.qualified, component.plugin, entry, options)


def check_needs(fusion: FusionPlan, vision: TowerPlan, text: TowerPlan) -> None:
    """Refuse a head that reads more of the towers than they have, as far as that is known without building them.

    Raises:
        SpecError: naming the tower, and the most that it has.
    """
    fusion.entry.fits(fusion.options, vision.facts, text.facts)
    needs = fusion.entry.needs(fusion.options)
    for tower in (vision, text):
        if needs.layers and tower.facts.layered is False:
            raise SpecError(f"'{fusion.name}' reads layers of the towers, and '{tower.name}' does not list its own.")
        if isinstance(tower.facts.depth, int) and needs.layers > tower.facts.depth:
            raise SpecError(
                f"'{fusion.name}' reads the last {needs.layers} layers of each tower, and '{tower.name}' has "
                f"{tower.facts.depth}; say {fusion.name}(layers={tower.facts.depth}) or fewer."
            )
    _check_text_blocks(fusion, needs, text)


def _check_text_blocks(fusion: FusionPlan, needs: TowerNeeds, text: TowerPlan) -> None:
    depth = text.facts.depth
    if needs.text_blocks is not None and text.facts.text_blocks is False:
        raise SpecError(
            f"'{fusion.name}' runs blocks of the text tower in halves, with cross attention between attention and MLP, "
            f"and '{text.name}' has none that run so. Use a text tower such as 'bert-base', or leave out "
            f'text_blocks="{needs.text_blocks}".'
        )
    if needs.text_blocks == "shared" and isinstance(depth, int) and needs.count > depth:
        raise SpecError(
            f"'{fusion.name}' shares {needs.count} blocks of the text tower, and '{text.name}' has {depth}; say "
            f"{fusion.name}(layers={depth}) or fewer."
        )
    if needs.text_blocks != "inherited" or not isinstance(depth, int):
        return
    if "layers" not in text.entry.options.model_fields:
        raise SpecError(f"'{text.name}' cannot be cut, so '{fusion.name}' can inherit none of its blocks.")
    try:
        whole = text.options.model_copy(update={"layers": depth + needs.count})
        text.entry.describe(whole)
    except SpecError:
        raise SpecError(
            f"'{fusion.name}' inherits the {needs.count} blocks that follow the first {depth} of '{text.name}', which "
            f"has fewer; cut the tower, as '{text.name}[:{max(1, depth - needs.count)}]', or say layers= fewer."
        ) from None


def checked_options(entry: Entry, given: Mapping[str, Any], *, of: str) -> Options:
    """Return the options of an entry, checked with its own class.

    Raises:
        SpecError: an option is unknown, of the wrong type or out of range.
    """
    hidden = {"model", "revision"} if getattr(entry, "library", False) else set()
    unknown = next((key for key in given if key not in entry.options.model_fields), None)
    if unknown is not None:
        names = sorted(set(entry.options.model_fields) - hidden)
        listed = f" Its options: {', '.join(names)}." if names else " It has no options."
        raise SpecError(f"'{shown(of)}' has no option '{shown(unknown)}'.{did_you_mean(unknown, names)}{listed}")
    try:
        return entry.options.model_validate(dict(given), strict=None)
    except ValidationError as error:
        raise SpecError(explain(error, entry.options.model_json_schema(), what=shown(of))) from None


def described(component: Component, options: Options) -> Capabilities:
    """Return what a backbone's entry says of it with these options.

    Raises:
        PluginError: the plugin failed at that, or said something else.
    """
    entry = cast(BackboneEntry, component.entry)
    failed = f"The plugin '{component.plugin}' cannot describe '{entry.name}'"
    try:
        facts: object = entry.describe(options)
    except RenaissanceError:
        raise
    except Exception as error:  # a plugin's own code: anything can come of it
        reason = f"{type(error).__name__}: {shown(error, 200)}"
        raise PluginError(f"{failed} ({reason}); report it to the plugin, or choose another component.") from error
    if not isinstance(facts, Capabilities):
        raise PluginError(f"{failed}: it gave {shown(repr(facts))}, and no Capabilities; report it to the plugin.")
    return facts


def _first(layers: Layers, entry: BackboneEntry, facts: Capabilities, name: str) -> int:
    """Return how many first layers a slice builds; it is the option `layers` in another form."""
    if facts.layered is False or "layers" not in entry.options.model_fields:
        raise SpecError(f"'{name}' does not list its layers, so none can be cut away; leave out '{layers}'.")
    if layers.start not in (None, 0):
        raise SpecError(f"'{name}{layers}' cannot be built yet: only first layers can, as '{name}[:6]'.")
    if isinstance(facts.depth, Unknown):
        if layers.stop is None or layers.stop < 1:
            raise SpecError(
                f"The depth of '{name}' is known at build only; count its layers from the start, as '[:6]'."
            )
        return layers.stop
    return layer_range(layers, facts.depth, name)[1]


# --- tasks -----------------------------------------------------------------------------------------------------------


def task_plans(
    tasks: Sequence[str] | TaskUses,
    fusion: tuple[str, frozenset[Output]],
    architecture: Architecture,
    registry: Registry,
) -> dict[str, TaskPlan]:
    """Return the plans of tasks on a model whose fusion has this name and these outputs."""
    uses: TaskUses = tasks if isinstance(tasks, Mapping) else {name: {} for name in tasks}
    plans: dict[str, TaskPlan] = {}
    for name, options in uses.items():
        component = registry.find("task", name)
        entry = cast(TaskEntry, component.entry)
        if entry.name in plans:
            raise SpecError(f"Two tasks are called '{entry.name}' ('{shown(name)}' is one); a model has one of them.")
        plans[entry.name] = TaskPlan(
            component.qualified, component.plugin, entry, checked_options(entry, options, of=name)
        )
    trained = frozenset(name for name, task in plans.items() if task.entry.trains)
    for task in plans.values():
        _fits(task.entry, fusion, plans, architecture)
        task.entry.check(task.options, trained)
    return _ordered(plans)


def _fits(
    entry: TaskEntry,
    fusion: tuple[str, frozenset[Output]],
    plans: Mapping[str, TaskPlan],
    architecture: Architecture,
) -> None:
    if architecture not in entry.architectures:
        raise SpecError(f"The task '{entry.name}' does not work on {architecture} models.")
    missing = sorted(entry.outputs - fusion[1])
    if missing:
        raise SpecError(
            f"The task '{entry.name}' reads the fused {' and '.join(missing)} output, which '{fusion[0]}' does not "
            "give; use a fusion head such as 'lxmert', or leave the task out."
        )
    for need in entry.needs:
        if need not in plans:
            raise SpecError(f"The task '{entry.name}' needs the task '{need}'; add it.")
    if entry.needs_any and not set(entry.needs_any) & set(plans):
        raise SpecError(f"The task '{entry.name}' needs one of: {', '.join(entry.needs_any)}; add one.")


def _ordered(plans: Mapping[str, TaskPlan]) -> dict[str, TaskPlan]:
    """Put each task after those whose published values it reads; otherwise keep the order of the recipe."""
    ordered: dict[str, TaskPlan] = {}
    waiting = dict(plans)
    while waiting:
        ready = [name for name, plan in waiting.items() if not set(plan.entry.needs) & set(waiting)]
        if not ready:
            raise SpecError(f"The tasks {', '.join(waiting)} need each other in a circle.")
        ordered |= {name: waiting.pop(name) for name in ready[:1]}
    return ordered
