"""From a study to its arms and their runs: every recipe, written out, with the run that it starts from."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from renaissance.errors import SpecError, StudyError
from renaissance.recipe import validate_recipe
from renaissance.shorthand import parse_spec
from renaissance.spec import did_you_mean
from renaissance.studies.design import Control, Preset, Settings, Study, stage_of

REFERENCE = "@"
# recipe seeds of a later stage: that of its pretraining times this, and its own number
SEEDS_APART = 1000
# seeds of runs; those of a search's trials begin here
SEEDS_BELOW = 2**30


@dataclass(frozen=True, slots=True)
class Arm:
    """What is compared. levels: of each factor; {} for a control. recipes: by stage, without a seed."""

    name: str
    levels: Mapping[str, str]
    control: bool
    recipes: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A run of a stage. seeds: the number of the pretraining, then of each later stage. after: the run that it needs.

    recipe: all of it; where it starts from an earlier stage it names that run as '@<id>'. Arms share a run where their
    recipes are the same up to there, so `id` is made of the content alone.
    """

    id: str
    stage: str
    seeds: tuple[int, ...]
    recipe: Mapping[str, Any]
    after: str | None


@dataclass(frozen=True, slots=True)
class Design:
    """A study at the size of one preset: its arms, its runs in an order in which they can be done, and who has which.

    runs_of: by (arm, stage), the ids by their seeds, [pretraining seeds][later seeds, flat].
    """

    study: Study
    preset: str
    arms: tuple[Arm, ...]
    runs: Mapping[str, PlannedRun]
    runs_of: Mapping[tuple[str, str], Sequence[Sequence[str]]]
    searched: Mapping[str, Settings] = field(default_factory=dict)

    @property
    def size(self) -> Preset:
        """The preset."""
        return self.study.presets[self.preset]

    def arm(self, name: str) -> Arm:
        """Return the arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    def arms_of(self, run: str) -> list[str]:
        """Return the arms that a run belongs to."""
        return [arm for (arm, _), ids in self.runs_of.items() if any(run in row for row in ids)]


def at_preset(study: Study, name: str) -> Study:
    """Return the study at the size of a preset.

    Raises:
        StudyError: it has no such preset.
    """
    if name not in study.presets:
        hint = did_you_mean(name, study.presets)
        raise StudyError(f"'{study.name}' has no preset '{name}'; it has: {', '.join(study.presets)}.{hint}")
    preset = study.presets[name]
    search = study.search
    if search is not None and preset.trials is not None:
        search = search.model_copy(update={"trials": preset.trials})
    worlds = {
        world: found.model_copy(update={"size": preset.worlds.get(world, found.size)})
        for world, found in study.worlds.items()
    }
    return study.model_copy(
        update={"seeds": {**study.seeds, **preset.seeds}, "worlds": worlds, "search": search}
    )  # the settings are laid on stage by stage


def expand(study: Study, preset: str, *, searched: Mapping[str, Settings] | None = None) -> Design:
    """Return the design of a study at a preset. searched: what a search found for each arm.

    Raises:
        StudyError: no such preset or arm; or a recipe of an arm is wrong, which is named with its setting.
    """
    found = at_preset(study, preset)
    tuned = dict(searched or {})
    arms = tuple(_arms(found, study.presets[preset], tuned))
    runs: dict[str, PlannedRun] = {}
    runs_of: dict[tuple[str, str], list[list[str]]] = {}
    for arm in arms:
        for stage in arm.recipes:
            rows = [list(_runs(found, arm, stage, number, runs)) for number in range(next(iter(found.seeds.values())))]
            runs_of[arm.name, stage] = rows
    order = sorted(runs.values(), key=lambda run: (run.seeds[0], list(found.stages).index(run.stage), run.seeds))
    return Design(found, preset, arms, {run.id: run for run in order}, runs_of, tuned)


def every_arm(study: Study, preset: Preset, *, searched: Mapping[str, Settings] | None = None) -> tuple[Arm, ...]:
    """Return the arms of a study with a preset's settings, without planning their runs.

    Raises:
        StudyError: as `expand` raises it.
    """
    return tuple(_arms(study, preset, dict(searched or {})))


# --- arms -------------------------------------------------------------------------------------------------------------


def _arms(study: Study, preset: Preset, searched: Mapping[str, Settings]) -> Iterator[Arm]:
    stages = {name: _laid(_whole(study, name, recipe), name, preset.settings) for name, recipe in study.stages.items()}
    crossed = dict(_crossings(study))
    chosen = preset.arms or (*(study.arms or crossed), *study.controls)
    for name in chosen:
        if name in crossed:
            laid = [study.factors[factor].levels[level] for factor, level in crossed[name].items()]
            yield _arm(study, name, crossed[name], None, stages, [*laid, searched.get(name, {})])
        elif name in study.controls:
            control = study.controls[name]
            yield _arm(study, name, {}, control, stages, [control.settings, searched.get(name, {})])
        else:
            known = [*crossed, *study.controls]
            raise StudyError(f"'{study.name}' has no arm '{name}'; it has: {', '.join(known)}.")


def _crossings(study: Study) -> Iterator[tuple[str, dict[str, str]]]:
    for levels in itertools.product(*(factor.levels for factor in study.factors.values())):
        yield ".".join(levels), dict(zip(study.factors, levels, strict=True))


def _arm(
    study: Study,
    name: str,
    levels: Mapping[str, str],
    control: Control | None,
    stages: Mapping[str, Mapping[str, Any]],
    settings: Sequence[Settings],
) -> Arm:
    skipped = control.skips if control is not None else ()
    recipes: dict[str, Mapping[str, Any]] = {}
    for stage, recipe in stages.items():
        if stage in skipped:
            continue
        laid = dict(recipe)
        for one in settings:
            laid = _laid(laid, stage, one)
        recipes[stage] = _checked(laid, f"{study.name}, arm '{name}', stage '{stage}'")
    if not recipes:
        raise StudyError(f"'{study.name}': the arm '{name}' skips every stage; leave one in.")
    return Arm(name, levels, control is not None, recipes)


def _whole(study: Study, stage: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage's recipe with every key."""
    return _checked({"name": f"{study.name}-{stage}", **recipe}, f"{study.name}, stage '{stage}'")


def _checked(recipe: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        found = validate_recipe(dict(recipe)).dump()
    except SpecError as error:
        raise StudyError(f"{where}: {error}") from None
    del found["seed"]
    return found


def _laid(recipe: Mapping[str, Any], stage: str, settings: Settings) -> dict[str, Any]:
    """Return a stage's recipe with those settings that are of it; wider paths come before those below them."""
    found = deepcopy(dict(recipe))
    for path in sorted(settings, key=lambda path: path.count(".")):
        if stage_of(path) == stage:
            *parents, last = path.split(".")[1:]
            place = found
            for key in parents:
                if not isinstance(place.get(key), dict):
                    place[key] = {}
                place = place[key]
            place[last] = _value(path, settings[path])
    return found


def _value(path: str, value: Any) -> Any:
    """Return the value of a setting; a start in shorthand becomes data, so that paths may go on below it."""
    if path.count(".") == 1 and path.endswith(".start") and isinstance(value, str):
        try:
            return parse_spec(value).model_dump(mode="json")
        except SpecError as error:
            raise StudyError(f"'{path}': {error}") from None
    return deepcopy(value)


# --- runs -------------------------------------------------------------------------------------------------------------


def _runs(study: Study, arm: Arm, stage: str, first: int, runs: dict[str, PlannedRun]) -> Iterator[str]:
    """Plan the runs of an arm's stage below one pretraining seed; yield their ids."""
    _, *nested = _chain(study, arm, stage)
    for rest in itertools.product(*(range(study.seeds[name]) for name in nested)):
        yield _plan(study, arm, stage, (first, *rest), runs).id


def _chain(study: Study, arm: Arm, stage: str) -> list[str]:
    """Return the stages in whose seeds those of a stage are nested: the first, those that it starts from, its own."""
    stages = list(study.stages)
    earlier = started_from(arm.recipes[stage])
    if earlier in arm.recipes and earlier in stages[: stages.index(stage)]:
        return [*_chain(study, arm, earlier), stage]
    return [stage] if stage == stages[0] else [stages[0], stage]


def _plan(study: Study, arm: Arm, stage: str, seeds: tuple[int, ...], runs: dict[str, PlannedRun]) -> PlannedRun:
    """Return the run of a stage, and note it and those that it starts from."""
    recipe: dict[str, Any] = {**deepcopy(dict(arm.recipes[stage])), "seed": _seed(seeds)}
    after = None
    earlier = started_from(recipe)
    if earlier is not None:
        stages = list(study.stages)
        if earlier not in arm.recipes or stages.index(earlier) >= stages.index(stage):
            raise StudyError(
                f"'{study.name}', arm '{arm.name}': the stage '{stage}' starts from '@{earlier}', which is no earlier "
                "stage of this arm; give its start in 'settings', or leave the stage in."
            )
        before = _plan(study, arm, earlier, seeds[: len(_chain(study, arm, earlier))], runs)
        after = before.id
        recipe["start"]["model"] = f"{REFERENCE}{after}"
    run = PlannedRun("", stage, seeds, recipe, after)
    run = replace(run, id=_id(study, run))
    return runs.setdefault(run.id, run)


def _seed(seeds: tuple[int, ...]) -> int:
    value = seeds[0]
    for number in seeds[1:]:
        value = value * SEEDS_APART + number
    return value


def started_from(recipe: Mapping[str, Any]) -> str | None:
    """Return the stage (or run) that a recipe starts from by '@name'; None: it starts from none."""
    model = recipe["start"].get("model")
    return model[1:] if isinstance(model, str) and model.startswith(REFERENCE) else None


def worlds_of(recipe: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Yield each place in a recipe that names made data, with the name of its world and of its layout."""
    waiting: list[Any] = [recipe]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and path.startswith(REFERENCE):
                world, _, layout = path[1:].partition("/")
                yield value, world, layout
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _id(study: Study, run: PlannedRun) -> str:
    """Return the name of a run: its stage, its seeds, and a digest of all that decides what it gives."""
    recipe = {key: value for key, value in run.recipe.items() if key != "name"}
    worlds = {}
    for _, world, layout in worlds_of(recipe):
        if world not in study.worlds or layout not in study.worlds[world].layouts:
            made = [f"@{name}/{one}" for name, found in study.worlds.items() for one in found.layouts]
            raise StudyError(
                f"'{study.name}': there are no data '@{world}/{layout}'; 'worlds' makes: {', '.join(made) or 'none'}."
            )
        worlds[world] = study.worlds[world].model_dump(mode="json", exclude={"layouts"})
    content = json.dumps({"recipe": recipe, "worlds": worlds}, sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:10]
    return f"{run.stage}-{'.'.join(map(str, run.seeds))}-{digest}"
