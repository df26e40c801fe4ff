"""What a study's arms and stages are, said without running them: sizes, FLOPs, what is frozen, data in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import PurePath
from typing import Any

from renaissance.assemble import Assembly
from renaissance.cost import assemble_without_weights, cost, counted
from renaissance.errors import RenaissanceError
from renaissance.models.freezing import frozen_parameters
from renaissance.models.parts import layers_of, part_names, still_of, towers_of
from renaissance.recipe import Recipe, validate_recipe
from renaissance.recipe.start import SavedStart
from renaissance.registry import default_registry
from renaissance.resolve import resolve
from renaissance.shorthand import format_spec
from renaissance.spec import OneTowerSpec, TwoTowerSpec
from renaissance.studies.arms import REFERENCE, Arm, Design, worlds_of
from renaissance.studies.effects import updates_of
from renaissance.uses import select_tasks

# texts are longer or shorter; what a run really takes stands in its ledger
TEXT_TOKENS = 16
COUNTED_BATCH = 4


@dataclass(frozen=True, slots=True)
class Size:
    """How large a model is.

    Attributes:
        total: its parameters with the heads of its tasks, each shared one counted once.
        trainable: those of them that train.
        without_embeddings: those of the encoder alone, without what stands before the first block of a tower.
        frozen: of each part that is frozen to some extent, how much.
    """

    total: int
    trainable: int
    without_embeddings: int
    frozen: Mapping[str, str]


def size_of(recipe: Mapping[str, Any]) -> Size | None:
    """Return the size of the model that a stage's recipe builds; None where it is not known without its weights.

    It is not where the model is a saved one, or a task takes its answers from the data.
    """
    return _size(_counted(recipe))


def flops_a_pair(recipe: Mapping[str, Any]) -> int | None:
    """Return the FLOPs of a forward pass, tasks included, for a pair (or an item) of a step, as plans count it.

    None as of `size_of`. Of billions of parameters counting takes minutes, which sizes are not made to wait for.
    """
    found = _recipe(json.loads(_counted(recipe)))
    if isinstance(found.start, SavedStart):
        return None
    try:
        tasks = select_tasks(found, default_registry()).options
        return _forward_flops(_thawed(found.start).model_dump_json(), json.dumps(dict(tasks), sort_keys=True))
    except RenaissanceError:
        return None


def arm_facts(design: Design) -> list[dict[str, Any]]:
    """Return what each arm is, by the first stage that it has."""
    return [_arm(design, arm) for arm in design.arms]


def stage_facts(design: Design) -> list[dict[str, Any]]:
    """Return what each stage is, by the first arm that has it; what arms vary is not said here."""
    found = []
    for stage in design.study.stages:
        recipe = next((arm.recipes[stage] for arm in design.arms if stage in arm.recipes), None)
        if recipe is not None:
            found.append(
                {
                    "name": stage,
                    "tasks": list(recipe["tasks"]),
                    "updates": updates_of(validate_recipe(dict(recipe))),
                    "budget": {name: value for name, value in recipe["budget"].items() if value is not None},
                    "batch": recipe["batch"]["size"],
                    "data": _data_words(design, recipe),
                    "seeds": design.study.seeds[stage],
                }
            )
    return found


def _arm(design: Design, arm: Arm) -> dict[str, Any]:
    study, recipe = design.study, next(iter(arm.recipes.values()))
    size = size_of(recipe)
    if arm.control:
        about, varies = study.controls[arm.name].about, list(study.controls[arm.name].varies)
    else:
        about = " ".join(f"{factor}: {level}." for factor, level in arm.levels.items())
        varies = [path for factor in arm.levels for path in study.factors[factor].varies]
    facts = {} if size is None else asdict(size)
    return {
        "name": arm.name,
        "control": arm.control,
        "about": about,
        "levels": dict(arm.levels),
        "varies": varies,
        "spec": _spec(recipe),
        "parameters": {name: facts[name] for name in ("total", "trainable", "without_embeddings")} if facts else None,
        "flops_a_pair": flops_a_pair(recipe),
        "frozen": facts.get("frozen"),
    }


def _spec(recipe: Mapping[str, Any]) -> str:
    """Return what a recipe starts from: a line of shorthand, or the name of a saved model without its folder."""
    start = _recipe(recipe).start
    if not isinstance(start, SavedStart):
        return format_spec(start)
    model = start.model
    return model if model.startswith(REFERENCE) or not PurePath(model).is_absolute() else PurePath(model).name


def _recipe(recipe: Mapping[str, Any]) -> Recipe:
    return validate_recipe({key: recipe[key] for key in ("start", "tasks", "evaluation")})


def _counted(recipe: Mapping[str, Any]) -> str:
    """Return what of a recipe decides its size."""
    return json.dumps({key: recipe[key] for key in ("start", "tasks", "evaluation")}, sort_keys=True)


# --- sizes ------------------------------------------------------------------------------------------------------------


@cache
def _size(content: str) -> Size | None:
    recipe = _recipe(json.loads(content))
    if isinstance(recipe.start, SavedStart):
        return None
    registry = default_registry()
    try:
        tasks = select_tasks(recipe, registry).options
        assembly = assemble_without_weights(resolve(recipe.start, tasks, registry=registry))
    except RenaissanceError:
        return None
    whole, encoder = counted(assembly), counted(assembly.encoder)
    return Size(
        whole.total,
        whole.trainable,
        encoder.total - _embeddings(assembly),
        _frozen(assembly),
    )


@cache
def _forward_flops(spec: str, tasks: str) -> int:
    step = cost(json.loads(spec), json.loads(tasks), batch=COUNTED_BATCH, text_tokens=TEXT_TOKENS)
    return step.flops.forward // step.batch


def _thawed(spec: TwoTowerSpec | OneTowerSpec) -> TwoTowerSpec | OneTowerSpec:
    """Return a spec with nothing frozen, which changes no forward pass, so that such arms are counted once."""
    kept = tuple(rule for rule in spec.rules if rule.action not in ("frozen", "trainable"))
    return spec.model_copy(update={"rules": kept})


def _embeddings(assembly: Assembly) -> int:
    """Return the parameters before the first block of towers that list their blocks, and of added embeddings."""
    encoder = assembly.encoder
    found = {}
    for name in part_names(encoder):
        layers = layers_of(encoder, name) if name in towers_of(encoder) else ()
        if layers:
            found.update({id(parameter): parameter.numel() for parameter in layers[0].parameters()})
        elif name not in (*towers_of(encoder), "fusion"):  # what a one-tower model adds for the other modality
            found.update({id(parameter): parameter.numel() for parameter in getattr(encoder, name).parameters()})
    return sum(found.values())


def _frozen(assembly: Assembly) -> dict[str, str]:
    """Return how much of each part is frozen from the start, in words; parts of which nothing is are left out."""
    encoder = assembly.encoder
    frozen = frozen_parameters(encoder, assembly.plan.rules)
    found = {}
    for name in part_names(encoder):
        still, depth = still_of(encoder, name, frozen), max(0, len(layers_of(encoder, name)) - 2)
        own = list(getattr(encoder, name).parameters())
        if not own:
            continue
        if still.whole:
            found[name] = f"{depth} of {depth} blocks" if depth else "all of it"
        elif still.blocks:
            found[name] = f"{still.blocks} of {depth} blocks"
        elif any(id(parameter) in frozen for parameter in own):
            found[name] = "some parameters"
    return found


# --- data in words ----------------------------------------------------------------------------------------------------


def _data_words(design: Design, recipe: Mapping[str, Any]) -> str:
    """Return what a stage trains on, without a path."""
    data = recipe["data"]
    for place, world, layout in worlds_of({"data": data}):
        if place is data:
            made = design.study.worlds[world]
            return f"the world '{world}' ({made.size:,} scenes of {made.image_size} px), as {layout}"
    match data:
        case {"kind": "world", "train": scenes, "image_size": side}:
            return f"{scenes:,} generated scenes of {side} px"
        case {"kind": kind, "path": str(path)}:
            return f"{kind} '{PurePath(path).name}'"
        case {"kind": kind}:
            return str(kind)
        case _:
            return "unknown"
