"""What recipes imply and do not say: arms whose words are equal may still train otherwise, and are compared here.

Dropout that an option leaves at its default, or that freezing turns off; the size of the images; options of heads that
a model keeps from an earlier stage; updates that epochs make. All of it is read off resolved specs, without torch.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from renaissance.api import Capabilities, Unknown
from renaissance.errors import SpecError, StudyError
from renaissance.plans import AnyPlan, OneTowerPlan
from renaissance.recipe import Recipe, validate_recipe
from renaissance.recipe.start import SavedStart
from renaissance.registry import Registry, default_registry
from renaissance.resolve import IMAGE_SIZE, resolve
from renaissance.shorthand import parse_part
from renaissance.spec import OneTowerSpec, PartRule, Rule, TowerSpec, TwoTowerSpec
from renaissance.studies.arms import Arm, Design, started_from, worlds_of
from renaissance.studies.design import Study
from renaissance.studies.linting import varied
from renaissance.uses import select_tasks


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that a stage of an arm implies.

    about: in words. value: what is compared. said: the same in words. paths: where arms differ in it, one of these, or
    what is below it, must stand in 'varies'.
    """

    about: str
    value: object
    said: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """The model that a stage trains.

    origin: the stage that says what it is made of. image_size: that a surgery gives it; spec: with what surgery changes
    of two towers.
    """

    origin: str
    spec: TwoTowerSpec | OneTowerSpec
    image_size: int | None = None


def check_effects(design: Design, *, registry: Registry | None = None) -> None:
    """Check that the models of all arms can be built, and that arms do not differ in what their recipes imply.

    Raises:
        StudyError: naming the arm and the fault; or two arms, the stage, and what differs.
    """
    known = registry or default_registry()
    found = {
        (arm.name, stage): {effect.about: effect for effect in _effects(design.study, arm, stage, known)}
        for arm in design.arms
        for stage in arm.recipes
    }
    study = design.study
    for one, other in itertools.combinations(design.arms, 2):
        roots = varied(study, one, other)
        for stage in (stage for stage in one.recipes if stage in other.recipes):
            _compare(study.name, stage, roots, (one, found[one.name, stage]), (other, found[other.name, stage]))


def updates_of(recipe: Recipe) -> int | None:
    """Return the updates of a training, where the recipe alone tells."""
    budget = recipe.budget
    if budget.samples is not None:
        return budget.samples // recipe.batch.size
    if budget.epochs is not None:
        train = getattr(recipe.data, "train", None)
        aside = recipe.evaluation.validation if recipe.evaluation.every is not None else 0
        return budget.epochs * ((train - aside) // recipe.batch.size) if isinstance(train, int) else None
    return budget.steps


def model_of(study: Study, arm: Arm, stage: str) -> Model | None:
    """Return the model that an arm trains in a stage: its own, or that of the stage from which it starts.

    None: it starts from a saved model, whose spec only its folder tells.
    """
    recipe = validate_recipe(dict(arm.recipes[stage]))
    if not isinstance(recipe.start, SavedStart):
        return Model(stage, recipe.start)
    earlier = started_from(arm.recipes[stage])
    before = None if earlier is None else model_of(study, arm, earlier)
    if before is None:
        return None
    surgery = recipe.start.surgery
    rules = [PartRule(action="trainable", part=parse_part(part)) for part in surgery.thaw]
    rules += [PartRule(action="frozen", part=parse_part(part)) for part in surgery.freeze]
    spec = before.spec.model_copy(update={"rules": (*before.spec.rules, *rules)})
    if isinstance(spec, TwoTowerSpec):
        sizes = {"vision": ("image_size", surgery.image_size), "text": ("max_tokens", surgery.max_tokens)}
        spec = spec.model_copy(update={tower: _sized(getattr(spec, tower), *size) for tower, size in sizes.items()})
    return Model(before.origin, spec, surgery.image_size or before.image_size)


def _sized(tower: TowerSpec, option: str, size: int | None) -> TowerSpec:
    return tower if size is None else tower.model_copy(update={"options": {**tower.options, option: size}})


# --- comparing --------------------------------------------------------------------------------------------------------


def _compare(
    study: str,
    stage: str,
    roots: Sequence[str],
    one: tuple[Arm, Mapping[str, Effect]],
    other: tuple[Arm, Mapping[str, Effect]],
) -> None:
    for about in (about for about in one[1] if about in other[1]):
        first, second = one[1][about], other[1][about]
        if first.value != second.value and not any(_names(root, (*first.paths, *second.paths)) for root in roots):
            raise StudyError(
                f"{study}: the arms '{one[0].name}' and '{other[0].name}' differ in {about} of '{stage}', which their "
                f"recipes imply: {first.said}, and {second.said}; make it equal, or name '{first.paths[0]}' itself in "
                "'varies' and say why in 'about'."
            )


def _names(root: str, paths: tuple[str, ...]) -> bool:
    """Return whether a factor names one of these paths, or something below it, and not only what is above."""
    return any(root == path or root.startswith(f"{path}.") for path in paths)


def _effects(study: Study, arm: Arm, stage: str, registry: Registry) -> Iterator[Effect]:
    """Yield what a stage of an arm implies.

    Raises:
        StudyError: its model or its tasks are none.
    """
    recipe = validate_recipe(dict(arm.recipes[stage]))
    yield from _training(study, arm, stage, recipe)
    model = model_of(study, arm, stage)
    if model is None:
        return
    try:
        plan = resolve(model.spec, select_tasks(recipe, registry).options, registry=registry)
    except SpecError as error:
        raise StudyError(f"{study.name}, arm '{arm.name}', stage '{stage}': {error}") from None
    for name, (origin, options) in _heads(study, arm, stage, plan, registry).items():
        said = ", ".join(f"{key}={value}" for key, value in options.items())
        value = json.dumps(options, sort_keys=True)
        yield Effect(f"the head of '{name}'", value, f"({said})", (f"{origin}.tasks",))
    yield from _parts(model, plan)


def _training(study: Study, arm: Arm, stage: str, recipe: Recipe) -> Iterator[Effect]:
    """Yield the updates, which a budget in epochs makes of the data, and the warm-up."""
    if not recipe.budget.counted:
        return
    updates, path = updates_of(recipe), f"{stage}.budget"
    if updates is not None:
        warmup = recipe.schedule.warmup(updates)
        yield Effect("the updates", updates, f"{updates:,}", (path,))
        yield Effect("the updates of warm-up", warmup, f"{warmup:,}", (f"{stage}.schedule", path))
        return
    data = arm.recipes[stage]["data"]
    sizes = {world: study.worlds[world].size for _, world, _ in worlds_of({"data": data})}
    read = {key: value for key, value in data.items() if key != "splits"}
    value = json.dumps([recipe.budget.epochs, recipe.batch.size, read, sizes], sort_keys=True)
    yield Effect("the updates", value, f"{recipe.budget.epochs} epochs of its own data and batches", (path,))


# --- heads ------------------------------------------------------------------------------------------------------------


def _heads(
    study: Study, arm: Arm, stage: str, plan: AnyPlan, registry: Registry
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the options of the heads that a stage trains, each with the stage that made it.

    Raises:
        StudyError: a head that the model has is to have other options, or what changes is not declared.
    """
    recipe = validate_recipe(dict(arm.recipes[stage]))
    own = {name: task.options.model_dump(mode="json") for name, task in plan.tasks.items() if task.entry.trains}
    heads = {name: (stage, options) for name, options in own.items()}
    earlier = started_from(arm.recipes[stage])
    if earlier is None or not isinstance(recipe.start, SavedStart):
        return heads
    made = _made(study, arm, earlier, registry)
    where = f"{study.name}, arm '{arm.name}', stage '{stage}'"
    for what, real, declared in (
        ("drop_tasks", made.keys() - own.keys(), recipe.start.surgery.drop_tasks),
        ("add_tasks", own.keys() - made.keys(), recipe.start.surgery.add_tasks),
    ):
        if real != set(declared):
            raise StudyError(
                f"{where}: against '@{earlier}' its heads change otherwise than is declared; write 'surgery: {{{what}: "
                f"[{', '.join(sorted(real))}]}}' in its start."
            )
    given = {name for name, use in recipe.tasks.items() if use.options}
    for name, (_, options) in made.items():
        if name in own and name in given and {**own[name], "labels": None} != {**options, "labels": None}:
            raise StudyError(
                f"{where}: the head of '{name}' was built with other options in '@{earlier}'; leave them out, or make "
                "them equal."
            )
    return {name: made.get(name, head) for name, head in heads.items()}


def _made(study: Study, arm: Arm, stage: str, registry: Registry) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the heads of the model that a stage makes."""
    model = model_of(study, arm, stage)
    assert model is not None, "a later stage has the same model, and it is known"
    recipe = validate_recipe(dict(arm.recipes[stage]))
    plan = resolve(model.spec, select_tasks(recipe, registry).options, registry=registry)
    return _heads(study, arm, stage, plan, registry)


# --- towers and fusion ------------------------------------------------------------------------------------------------


def _parts(model: Model, plan: AnyPlan) -> Iterator[Effect]:
    """Yield the dropout of each part, and the size of the images."""
    kept_on = plan.spec.as_published.frozen_in_train_mode
    for place, part, options, facts in _placed(plan):
        path = f"{model.origin}.start.{place}.options"
        rules = () if kept_on else [rule for rule in plan.rules if rule.part.name == part]
        held = _still(rules, None if facts is None or isinstance(facts.depth, Unknown) else facts.depth)
        for option, rate in options.items():
            if "drop" in option:
                value, said = _dropout(rate, held)
                yield Effect(f"the {option} of '{part}'", value, said, (f"{path}.{option}",))
        side = None if facts is None else model.image_size or facts.image_size
        if isinstance(side, int):
            yield Effect("the size of the images", side, f"{side} pixels", (f"{path}.image_size",))
    if isinstance(plan, OneTowerPlan) and plan.donor is None and plan.base.entry.modality == "text":
        side = model.image_size or plan.spec.image_size or IMAGE_SIZE
        yield Effect("the size of the images", side, f"{side} pixels", (f"{model.origin}.start.image_size",))


def _placed(plan: AnyPlan) -> Iterator[tuple[str, str, dict[str, Any], Capabilities | None]]:
    """Yield of each part its place in a spec, what rules call it, its options, and what is known of it."""
    if isinstance(plan, OneTowerPlan):
        other = "text" if plan.base.entry.modality == "vision" else "vision"
        yield "base", "encoder", plan.base.options.model_dump(mode="json"), plan.base.facts
        if plan.donor is not None:  # its embeddings alone, which have no dropout of their own
            side = {} if other == "text" else {"image_size": None}
            yield "donor", other, side, plan.donor.facts
        return
    for name, tower in (("vision", plan.vision), ("text", plan.text)):
        yield name, name, tower.options.model_dump(mode="json"), tower.facts
    yield "fusion", "fusion", plan.fusion.options.model_dump(mode="json"), None


@dataclass(frozen=True, slots=True)
class _Held:
    """What of a part holds still: its layers (-1: the embeddings) of `count`, and rules that are no ranges of these."""

    layers: frozenset[int]
    count: int
    beside: tuple[str, ...]


def _still(rules: Sequence[Rule], depth: int | None) -> _Held:
    """Return what canonical rules on one part hold still; without a known depth it counts as one layer."""
    every = range(-1, depth + 1) if depth is not None else range(1)
    still: set[int] = set()
    beside: list[str] = []
    for rule in rules:
        part = rule.part
        plain = part.pattern is None and (part.group is None or (part.group == "embeddings" and depth is not None))
        if rule.action not in ("frozen", "trainable") or not plain or (part.layers is not None and depth is None):
            beside.append(str(rule))
            continue
        layers = set(every) if part.group is None else {-1}
        if part.layers is not None:
            start, stop = part.layers.start, part.layers.stop
            layers = {one for one in every if (start is None or one >= start) and (stop is None or one < stop)}
        still = still | layers if rule.action == "frozen" else still - layers
    return _Held(frozenset(still), len(every), tuple(beside))


def _dropout(rate: float | None, held: _Held) -> tuple[object, str]:
    """Return a dropout in effect, and in words: what holds still has none."""
    whole = len(held.layers) == held.count and not held.beside
    if not rate and rate is not None:
        return 0, "0"
    if whole:
        return 0, "0, as it holds still"
    said = "the model's own" if rate is None else f"{rate:g}"
    if held.layers or held.beside:
        said += f" in what trains of it, {held.count - len(held.layers)} of {held.count} layers"
    return (rate, held), said
