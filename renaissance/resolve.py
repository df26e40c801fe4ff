"""Spec and registry -> Plan: names become entries, options are checked, and what cannot fit is refused. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from renaissance.api import Capabilities, Modality
from renaissance.components import TaskUses, check_needs, fusion_plan, task_plans, tower_plan
from renaissance.errors import SpecError, UnknownComponentError
from renaissance.plans import AnyPlan, FusionPlan, OneTowerPlan, Plan, TowerPlan
from renaissance.registry import Registry, default_registry
from renaissance.rules import (
    Starts,
    Towers,
    bounded,
    chosen_starts,
    holding_rules,
    starting_rules,
    supported,
    supported_in_one_tower,
)
from renaissance.shorthand import parse_spec
from renaissance.spec import (
    LIBRARIES,
    FusionSpec,
    OneTowerSpec,
    PartRule,
    Rule,
    TowerSpec,
    TwoTowerSpec,
    validate_spec,
)

# new embeddings of a one-tower model, where the spec does not say
IMAGE_SIZE, PATCH_SIZE, MAX_TOKENS = 224, 16, 64


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
    vision = tower_plan(model.vision, "vision", chosen_starts(rules, "vision"), registry)
    text = tower_plan(model.text, "text", chosen_starts(rules, "text"), registry)
    fusion = fusion_plan(model.fusion, registry)
    check_needs(fusion, vision, text)
    held = holding_rules(rules, {"vision": (vision.name, vision.facts), "text": (text.name, text.facts)})
    plans = task_plans(tasks, (fusion.name, fusion.entry.outputs), "two-tower", registry)
    used = (vision.plugin, text.plugin, fusion.plugin, *(task.plugin for task in plans.values()))
    return Plan(
        spec=_canonical(vision, text, fusion, held).model_copy(update={"as_published": model.as_published}),
        vision=vision,
        text=text,
        fusion=fusion,
        rules=held,
        tasks=plans,
        plugins=_distributions(used, registry),
    )


def _one_tower(model: OneTowerSpec, tasks: Sequence[str] | TaskUses, registry: Registry) -> OneTowerPlan:
    if model.as_published.ids_embedded_twice:
        raise SpecError("'ids_embedded_twice' is a fault of two-tower models; leave it out of this one-tower model.")
    modality, told = _base_modality(model, registry)
    other: Modality = "text" if modality == "vision" else "vision"
    rules = supported_in_one_tower(model.rules, other)
    base = tower_plan(model.base, modality, chosen_starts(rules, "encoder"), registry, part="encoder")
    _check_base(base)
    donor = None
    if model.donor is None:
        _check_nothing_read(rules, other)
    else:
        if model.donor.layers is not None:
            raise SpecError(f"'{model.donor.name}' gives its embeddings alone; leave out '{model.donor.layers}'.")
        donor = tower_plan(model.donor, other, chosen_starts(rules, other), registry)
    _check_new_embeddings(model, other)
    nothing = Capabilities(depth=0, layered=True)
    parts = {"encoder": (base.name, base.facts), other: (donor.name if donor else other, nothing)}
    held = holding_rules(rules, parts)
    plans = task_plans(tasks, ("one-tower", frozenset({"vision", "text", "pooled"})), "one-tower", registry)
    used = (base.plugin, *([donor.plugin] if donor else []), *(task.plugin for task in plans.values()))
    spec = model.model_copy(
        update={
            "base": _canonical_tower(base),
            "donor": None if donor is None else _canonical_tower(donor),
            "modality": None if told else modality,
            "rules": (*_starts({"encoder": base, other: donor}), *held),
        }
    )
    return OneTowerPlan(spec, base, donor, held, plans, _distributions(used, registry))


def resolve_rules(plan: AnyPlan, rules: Iterable[Rule]) -> list[Rule]:
    """Check further rules against a model: those of the stages of a training, or parts that are given a learning rate.

    Raises:
        SpecError: a part is none of this model, or it has no such layers.
    """
    nothing = Capabilities(depth=0, layered=True)
    if isinstance(plan, OneTowerPlan):
        other = "text" if plan.base.entry.modality == "vision" else "vision"
        checked = supported_in_one_tower(rules, other)
        towers: Towers = {"encoder": (plan.base.name, plan.base.facts), other: (other, nothing)}
    else:
        checked = supported(rules)
        towers = {name: (tower.name, tower.facts) for name, tower in (("vision", plan.vision), ("text", plan.text))}
    return [rule.model_copy(update={"part": bounded(rule.part, towers)}) for rule in checked]


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
        if model.modality not in modalities:
            encoded, like = ("images", "bert-base") if modalities[0] == "vision" else ("text", "vit-base")
            raise SpecError(
                f"'{model.base.name}' encodes {encoded}, and modality='{model.modality}' says something else of it; "
                f"leave modality out, or base the model on one such as '{like}'."
            )
        return model.modality, told
    if not told:
        modalities = _of_base(model.base, modalities, registry)
    if len(modalities) != 1:
        raise SpecError(
            f'\'{model.base.name}\' can be of either modality; say one-tower(modality="text"), or modality="vision".'
        )
    return modalities[0], told


def _of_base(base: TowerSpec, modalities: list[Modality], registry: Registry) -> list[Modality]:
    """Return those modalities of which a base can be by its name, else by its options."""
    named = _facts(base.model_copy(update={"options": {}, "layers": None}), modalities, registry)
    fitting = [one for one, facts in named.items() if facts.base is not False] or list(named)[:1]
    if len(fitting) > 1:
        return list(_facts(base, fitting, registry)) or fitting
    return fitting or modalities


def _facts(base: TowerSpec, modalities: list[Modality], registry: Registry) -> dict[Modality, Capabilities]:
    """Return what is known of a base in each modality that can be described with its options."""
    found: dict[Modality, Capabilities] = {}
    for modality in modalities:
        with suppress(SpecError):  # of the one that it is of, the same error is raised when its plan is made
            found[modality] = tower_plan(base, modality, Starts("random", "random"), registry).facts
    return found


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


def _check_nothing_read(rules: Iterable[Rule], other: Modality) -> None:
    """Refuse to start new embeddings from pretrained weights, as they are or shuffled: they have none."""
    odd = next((rule for rule in rules if rule.part.name == other and rule.action in ("pretrained", "shuffled")), None)
    if odd is not None:
        like = "vit-base" if other == "vision" else "bert-base"
        raise SpecError(f"'{odd}': these embeddings are new; leave it out, or name whose they are: '+ {like}'.")


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
        fitting = f"image_size={round(size / patch) * patch}"
        if patch > size:  # an image of one patch is no choice that anyone looks for
            largest = max(side for side in range(1, size) if size % side == 0)
            fitting = f"image_size={size}, patch_size={largest}"
        raise SpecError(f"image_size={size} is no multiple of patch_size={patch}; use {fitting}.")


# --- the canonical form ----------------------------------------------------------------------------------------------


def _canonical(vision: TowerPlan, text: TowerPlan, fusion: FusionPlan, held: tuple[Rule, ...]) -> TwoTowerSpec:
    return TwoTowerSpec(
        vision=_canonical_tower(vision),
        text=_canonical_tower(text),
        fusion=FusionSpec(name=fusion.name, options=fusion.options.model_dump(mode="json", exclude_defaults=True)),
        rules=(*_starts({"vision": vision, "text": text}), *held),
    )


def _starts(towers: Mapping[str, TowerPlan | None]) -> list[PartRule]:
    """Return the rules that say what towers start from, where that is not their pretrained weights."""
    planned = {name: tower for name, tower in towers.items() if tower is not None}
    return starting_rules({name: Starts(tower.weights, tower.embeddings) for name, tower in planned.items()})


def _canonical_tower(tower: TowerPlan) -> TowerSpec:
    named = {"model", "revision"} if tower.entry.library else set()
    options = tower.options.model_dump(mode="json", exclude_defaults=True, exclude=named)
    return TowerSpec(name=tower.name, options=options)


def _distributions(plugins: Iterable[str], registry: Registry) -> dict[str, str]:
    found = {name: registry.plugin(name) for name in sorted(set(plugins))}
    return {name: f"{plugin.distribution} {plugin.version}" for name, plugin in found.items() if plugin is not None}


__all__ = ["TaskUses", "as_spec", "resolve", "resolve_rules"]
