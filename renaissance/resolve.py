"""Spec and registry -> Plan: names become entries, options are checked, and what cannot fit is refused. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    Weights,
)
from renaissance.errors import PluginError, RenaissanceError, SpecError, UnknownComponentError
from renaissance.plans import AnyPlan, FusionPlan, OneTowerPlan, Plan, TaskPlan, TowerPlan
from renaissance.registry import Component, Kind, Registry, default_registry
from renaissance.rules import chosen_weights, frozen_parts, layer_range, supported, supported_in_one_tower
from renaissance.shorthand import parse_spec
from renaissance.spec import (
    LIBRARIES,
    FusionSpec,
    Layers,
    OneTowerSpec,
    Part,
    PartRule,
    TowerSpec,
    TwoTowerSpec,
    did_you_mean,
    explain,
    shown,
    validate_spec,
)

# new embeddings of a one-tower model, where the spec does not say
IMAGE_SIZE, PATCH_SIZE, MAX_TOKENS = 224, 16, 64

TaskUses = Mapping[str, Mapping[str, Any]]


def as_spec(spec: object) -> OneTowerSpec | TwoTowerSpec:
    """Return the spec that a line of shorthand, a mapping or a spec stands for."""
    if isinstance(spec, OneTowerSpec | TwoTowerSpec):
        return spec
    return parse_spec(spec) if isinstance(spec, str) else validate_spec(spec)


def resolve(spec: object, tasks: Sequence[str] | TaskUses = (), *, registry: Registry | None = None) -> AnyPlan:
    """Check a spec and its tasks against what is installed.

    `tasks` are names, or names with options. Nothing heavy is imported, and nothing is downloaded.

    Raises:
        SpecError: a name, an option or a combination is wrong; the message says what to write in its place.
        PluginError: a plugin that is named failed, or two offer the same bare name.
    """
    registry = registry or default_registry()
    model = as_spec(spec)
    if isinstance(model, OneTowerSpec):
        return _one_tower(model, tasks, registry)
    if model.as_published.inner_layers_only:
        raise SpecError("'inner_layers_only' is a fault of one-tower models; leave it out of this two-tower model.")
    rules = supported(model.rules)
    vision = _tower(model.vision, "vision", chosen_weights(rules, "vision"), registry)
    text = _tower(model.text, "text", chosen_weights(rules, "text"), registry)
    fusion = _fusion(model.fusion, registry)
    _check_needs(fusion, vision, text)
    frozen = frozen_parts(rules, {"vision": (vision.name, vision.facts), "text": (text.name, text.facts)})
    plans = _tasks(tasks, (fusion.name, fusion.entry.outputs), "two-tower", registry)
    used = (vision.plugin, text.plugin, fusion.plugin, *(task.plugin for task in plans.values()))
    return Plan(
        spec=_canonical(vision, text, fusion, frozen).model_copy(update={"as_published": model.as_published}),
        vision=vision,
        text=text,
        fusion=fusion,
        frozen=frozen,
        tasks=plans,
        plugins=_distributions(used, registry),
    )


def _one_tower(model: OneTowerSpec, tasks: Sequence[str] | TaskUses, registry: Registry) -> OneTowerPlan:
    if model.as_published.ids_embedded_twice:
        raise SpecError("'ids_embedded_twice' is a fault of two-tower models; leave it out of this one-tower model.")
    modality, told = _base_modality(model, registry)
    other: Modality = "text" if modality == "vision" else "vision"
    rules = supported_in_one_tower(model.rules, other)
    base = _tower(model.base, modality, chosen_weights(rules, "encoder"), registry)
    _check_base(base)
    donor = None
    if model.donor is not None:
        if model.donor.layers is not None:
            raise SpecError(f"'{model.donor.name}' gives its embeddings alone; leave out '{model.donor.layers}'.")
        donor = _tower(model.donor, other, chosen_weights(rules, other), registry)
    _check_new_embeddings(model, other)
    nothing = Capabilities(depth=0, layered=True)
    parts = {"encoder": (base.name, base.facts), other: (donor.name if donor else other, nothing)}
    frozen = frozen_parts(rules, parts)
    plans = _tasks(tasks, ("one-tower", frozenset({"vision", "text", "pooled"})), "one-tower", registry)
    used = (base.plugin, *([donor.plugin] if donor else []), *(task.plugin for task in plans.values()))
    spec = model.model_copy(
        update={
            "base": _canonical_tower(base),
            "donor": None if donor is None else _canonical_tower(donor),
            "modality": None if told else modality,
            "rules": (*_starts({"encoder": base, other: donor}), *_holds(frozen)),
        }
    )
    return OneTowerPlan(spec, base, donor, frozen, plans, _distributions(used, registry))


def _base_modality(model: OneTowerSpec, registry: Registry) -> tuple[Modality, bool]:
    """Return what the base encodes, and whether the names alone tell it.

    Raises:
        SpecError: nothing of these tells.
        UnknownComponentError: there is no such backbone.
    """
    modalities = _modalities(model.base.name, registry)
    if model.donor is not None:
        given = _modalities(model.donor.name, registry)
        modalities = [one for one in modalities if any(other != one for other in given)]
        if not modalities:
            raise SpecError(
                f"'{model.base.name}' and '{model.donor.name}' encode the same; the donor gives the embeddings of the "
                "modality that the base lacks: 'vit-base + bert-base, one-tower'."
            )
    told = len(modalities) == 1
    if model.modality is not None:
        modalities = [one for one in modalities if one == model.modality]
    if len(modalities) != 1:
        raise SpecError(
            f"'{model.base.name}' can be of either modality, or of none that was asked for; say "
            'one-tower(modality="text"), or modality="vision".'
        )
    return modalities[0], told


def _modalities(name: str, registry: Registry) -> list[Modality]:
    found: list[Modality] = []
    unknown: UnknownComponentError | None = None
    library = name.partition(":")[0]
    both: tuple[Modality, Modality] = ("vision", "text")
    for modality in both:
        try:
            registry.find("backbone", library if library in LIBRARIES else name, modality)
        except UnknownComponentError as error:
            unknown = unknown or error
        else:
            found.append(modality)
    if not found and unknown is not None:
        raise unknown
    return found


def _check_base(base: TowerPlan) -> None:
    """Refuse a base whose blocks do not take tokens of another modality.

    Raises:
        SpecError: saying why, and which bases there are.
    """
    if base.facts.base is False or base.facts.layered is False:
        reason = base.facts.refused or "it does not list its blocks"
        like = "vit-base" if base.entry.modality == "vision" else "bert-base"
        raise SpecError(f"'{base.name}' cannot be the base of a one-tower model: {reason}. Use one such as '{like}'.")


def _check_new_embeddings(model: OneTowerSpec, other: Modality) -> None:
    """Refuse options of embeddings that are not built, and patches that do not fill the image."""
    new = {"vision": ("image_size", "patch_size"), "text": ("max_tokens", "tokenizer")}
    for modality, names in new.items():
        odd = next((name for name in names if getattr(model, name) is not None), None)
        if odd is not None and (model.donor is not None or modality != other):
            where = model.base.name if modality != other else model.donor.name if model.donor else other
            raise SpecError(f"'{odd}' is for new {modality} embeddings, and '{where}' brings its own; give it there.")
    size, patch = model.image_size or IMAGE_SIZE, model.patch_size or PATCH_SIZE
    if size % patch:
        nearest = max(patch, round(size / patch) * patch)
        raise SpecError(f"image_size={size} is no multiple of patch_size={patch}; use image_size={nearest}.")


# --- components -------------------------------------------------------------------------------------------------------


def _tower(tower: TowerSpec, modality: Modality, weights: Weights, registry: Registry) -> TowerPlan:
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
    if weights == "pretrained" and facts.pretrained is False:
        raise SpecError(f"'{entry.name}' has no pretrained weights; say 'random {modality}', or 'random both'.")
    name = tower.name if entry.library else component.qualified
    return TowerPlan(name, component.plugin, entry, options, facts, weights)


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


def _fusion(fusion: FusionSpec, registry: Registry) -> FusionPlan:
    component = registry.find("fusion-head", fusion.name)
    entry = cast(FusionHeadEntry, component.entry)
    options = checked_options(entry, fusion.options, of=fusion.name)
    entry.check(options)
    return FusionPlan(component.qualified, component.plugin, entry, options)


def _check_needs(fusion: FusionPlan, vision: TowerPlan, text: TowerPlan) -> None:
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


def _tasks(
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


# --- the canonical form ----------------------------------------------------------------------------------------------


def _canonical(vision: TowerPlan, text: TowerPlan, fusion: FusionPlan, frozen: tuple[Part, ...]) -> TwoTowerSpec:
    return TwoTowerSpec(
        vision=_canonical_tower(vision),
        text=_canonical_tower(text),
        fusion=FusionSpec(name=fusion.name, options=fusion.options.model_dump(mode="json", exclude_defaults=True)),
        rules=(*_starts({"vision": vision, "text": text}), *_holds(frozen)),
    )


def _starts(towers: Mapping[Any, TowerPlan | None]) -> list[PartRule]:
    """Return the rules that say which towers start from random weights."""
    random = [name for name, tower in towers.items() if tower is not None and tower.weights == "random"]
    return [PartRule(action="random", part=Part(name=name)) for name in random]


def _holds(frozen: Iterable[Part]) -> list[PartRule]:
    return [PartRule(action="frozen", part=part) for part in frozen]


def _canonical_tower(tower: TowerPlan) -> TowerSpec:
    named = {"model", "revision"} if tower.entry.library else set()
    options = tower.options.model_dump(mode="json", exclude_defaults=True, exclude=named)
    return TowerSpec(name=tower.name, options=options)


def _distributions(plugins: Iterable[str], registry: Registry) -> dict[str, str]:
    found = {name: registry.plugin(name) for name in sorted(set(plugins))}
    return {name: f"{plugin.distribution} {plugin.version}" for name, plugin in found.items() if plugin is not None}


__all__ = ["FusionPlan", "Kind", "Plan", "TaskPlan", "TowerPlan", "as_spec", "checked_options", "resolve"]
