"""What is wrong with a study, found before anything runs: arms that are unequal, or equal, and claims about nothing.

Here recipes are compared word by word; what they imply beside is compared in `renaissance.studies.effects`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from renaissance.errors import StudyError
from renaissance.spec import did_you_mean
from renaissance.studies.arms import SEEDS_BELOW, Arm, Design, every_arm
from renaissance.studies.design import Range, Study, stage_of, within

# what the first key of a recipe is about, in the words of the field
ABOUT = {
    "batch": "the batch",
    "budget": "the steps",
    "schedule": "the schedule and its warm-up",
    "data": "the data",
    "tasks": "the tasks and their heads",
    "augmentation": "the views",
    "optimiser": "the optimiser",
    "evaluation": "what is measured",
    "start": "the model",
    "freezing": "what is thawed when",
    "store": "what is stored",
    "precision": "the precision",
}
LEDGER = ("flops_as_run", "flops_no_store", "flops_store_built", "seconds_training", "peak_memory_bytes")
NOTHING = object()


def check_design(design: Design) -> None:
    """Check that the arms of a design differ by what their factors say alone, and that its hypotheses can be judged.

    Raises:
        StudyError: naming the arms, the stage, and what differs.
    """
    for fault in _faults(design):
        raise StudyError(f"{design.study.name}: {fault}")


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the paths at which two recipes differ, with both values; lists are compared whole."""
    for key in [*one, *(key for key in other if key not in one)]:
        first, second = one.get(key, NOTHING), other.get(key, NOTHING)
        path = f"{prefix}.{key}"
        if isinstance(first, dict) and isinstance(second, dict):
            yield from differences(first, second, path)
        elif first != second:
            yield path, first, second


def varied(study: Study, one: Arm, other: Arm) -> tuple[str, ...]:
    """Return the paths that may differ between two arms: those of the factors in which they do, and of controls."""
    paths: list[str] = []
    for arm in (one, other):
        if arm.control:
            paths += study.controls[arm.name].varies
    base = not (one.control or other.control)
    for name, factor in study.factors.items():
        if not base or one.levels[name] != other.levels[name]:  # a control stands beside each level of each factor
            paths += factor.varies
    if study.search is not None:
        paths += study.search.space
    return tuple(paths)


def _faults(design: Design) -> Iterator[str]:
    for one, other in itertools.combinations(design.arms, 2):
        yield from _unequal(design, one, other)
    yield from _unknown_paths(design)
    yield from _unjudged(design)
    yield from _unvalidated(design)
    yield from _unsearchable(design)
    if any(run.recipe["seed"] >= SEEDS_BELOW for run in design.runs.values()):
        yield "so many seeds in so many stages have no numbers left; give fewer seeds, or nest fewer stages."


# --- equal but for their factors --------------------------------------------------------------------------------------


def _unequal(design: Design, one: Arm, other: Arm) -> Iterator[str]:
    study = design.study
    roots = varied(study, one, other)
    for stage in (stage for stage in one.recipes if stage in other.recipes):
        for path, first, second in differences(one.recipes[stage], other.recipes[stage], stage):
            if not within(path, roots):
                about = ABOUT.get(path.split(".")[1], "a setting")
                yield (
                    f"the arms '{one.name}' and '{other.name}' differ in {about} ('{path}': {_shown(first)} and "
                    f"{_shown(second)}), which no factor between them varies; make them equal, or name the path in "
                    "'varies' and say why in 'about'."
                )
    runs = [[design.runs_of.get((arm.name, stage)) for stage in study.stages] for arm in (one, other)]
    if runs[0] == runs[1]:
        yield f"the arms '{one.name}' and '{other.name}' are the same, run for run; leave one out."


def _shown(value: Any) -> str:
    return "nothing" if value is NOTHING else f"{value!r}"[:80]


# --- factors of something ---------------------------------------------------------------------------------------------


def _unknown_paths(design: Design) -> Iterator[str]:
    """Yield what factors and controls vary that no recipe of the study has."""
    study = design.study
    plain = design.size.model_copy(update={"arms": (), "settings": {}})
    known = set().union(
        *(_paths(recipe, stage) for arm in every_arm(study, plain) for stage, recipe in arm.recipes.items())
    )
    named = [(f"the factor '{name}'", factor.varies) for name, factor in study.factors.items()]
    named += [(f"the control '{name}'", control.varies) for name, control in study.controls.items()]
    for what, paths in named:
        for path in paths:
            parent = path.rpartition(".")[0]
            # options that a spec leaves at their default stand in no recipe; `effects` knows them
            if path not in known and not (parent.endswith(".options") and parent in known):
                yield f"{what} varies '{path}', which no recipe here has.{did_you_mean(path, known)}"


def _paths(recipe: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Yield the path of each setting of a recipe, and of what holds it."""
    for key, value in recipe.items():
        path = f"{prefix}.{key}"
        yield path
        if isinstance(value, dict):
            yield from _paths(value, path)


# --- hypotheses that can be judged ------------------------------------------------------------------------------------


def _unjudged(design: Design) -> Iterator[str]:
    study, names = design.study, [arm.name for arm in design.arms]
    chosen = [*study.arms, *study.controls]
    for hypothesis in study.hypotheses:
        where = f"the hypothesis '{hypothesis.name}'"
        for name in hypothesis.arms:
            if study.arms and name not in chosen:
                yield f"{where} is about the arm '{name}', which 'arms' leaves out."
            elif name in names:
                yield from _unmeasured(hypothesis.metric, design.arm(name), where)
            elif hypothesis.name == study.primary and design.size.verdicts == "confirmatory":
                yield (
                    f"the preset '{design.preset}' leaves out the arm '{name}' of the primary hypothesis "
                    f"'{hypothesis.name}'; add it to its 'arms', or set verdicts: exploratory."
                )


def _unmeasured(metric: str, arm: Arm, where: str) -> Iterator[str]:
    stage, *parts = metric.split("/")
    if stage not in arm.recipes:
        yield f"{where} is about '{metric}', and the arm '{arm.name}' skips the stage '{stage}'."
        return
    recipe, where = arm.recipes[stage], f"{where} is about"
    match parts:
        case [_, figure]:
            yield from _unknown("figure of the ledger", figure, LEDGER, where, stage)
        case [split, task, _]:
            yield from _unknown("split", split, _splits(recipe), where, stage)
            yield from _unknown("task", task, _tasks(recipe), where, stage)
        case [data, split, task, _]:
            others = recipe["evaluation"]["data"]
            yield from _unknown("further data", data, list(others), where, stage)
            if data in others:  # what it leaves open is known when it is opened
                where, stage = f"{where} '{data}', and", f"{stage}.evaluation.data.{data}"
                yield from _unknown("split", split, list(others[data]["splits"]) or None, where, stage)
                yield from _unknown("task", task, _named(others[data]["tasks"]) or None, where, stage)


def _unknown(what: str, name: str, known: Sequence[str] | None, where: str, stage: str) -> Iterator[str]:
    """Yield that a stage does not measure something; `known`: what it does, None where only its data tell."""
    if known is not None and name not in known:
        listed = f"{', '.join(known) or 'none'}.{did_you_mean(name, known)}"
        yield f"{where} the {what} '{name}', which '{stage}' does not measure; it has: {listed}"


def _tasks(recipe: Mapping[str, Any]) -> list[str]:
    return _named((*recipe["tasks"], *recipe["evaluation"]["tasks"]))


def _named(tasks: Iterable[str]) -> list[str]:
    """Return tasks as scores name them, without the plugin that they come from."""
    return list(dict.fromkeys(name.rpartition(":")[2] for name in tasks))


def _splits(recipe: Mapping[str, Any]) -> list[str] | None:
    """Return the splits that a stage measures; None: only its data tell."""
    data = recipe["data"]
    if recipe["evaluation"]["splits"]:
        return list(recipe["evaluation"]["splits"])
    match data["kind"]:
        case "world":
            return ["test"]
        case "images":
            return [*(held["name"] for held in data["hold_out"]), *data["splits"]]
        case "prepared":
            return list(data["splits"]) or None
        case _:
            return None


# --- searches and targets that can be read ----------------------------------------------------------------------------


def _unvalidated(design: Design) -> Iterator[str]:
    """Yield searches and targets that read what a stage does not measure while it trains."""
    study = design.study
    asked = [("search", study.search.stage, study.search.metric)] if study.search is not None else []
    asked += [("targets", target.stage, target.metric) for target in study.targets]
    for what, stage, metric in asked:
        for recipe in (arm.recipes[stage] for arm in design.arms if stage in arm.recipes):
            yield from _unknown("task", metric.split("/")[1], _tasks(recipe), f"'{what}' reads", stage)
            if what == "targets" and not recipe["evaluation"]["every"]:  # a search evaluates at the end by itself
                yield f"'targets' reads '{metric}', and '{stage}.evaluation.every' is not set; set it."


def _unsearchable(design: Design) -> Iterator[str]:
    """Yield settings that a search cannot tune in all arms alike, and values of them that a recipe does not take."""
    study, search = design.study, design.study.search
    if search is None:
        return
    for path, space in search.space.items():
        if stage_of(path) != search.stage:
            yield f"'search' tunes '{path}', which is not of its stage '{search.stage}'."
        levels = [level for factor in study.factors.values() for level in factor.levels.values()]
        for settings in (*levels, *(control.settings for control in study.controls.values())):
            for given in settings:
                if within(path, (given,)) or within(given, (path,)):
                    yield f"'search' tunes '{path}', and '{given}' is set by an arm; leave one of them out."
        for value in (space.low, space.high) if isinstance(space, Range) else space:
            tried = {arm.name: {path: value} for arm in design.arms if search.stage in arm.recipes}
            try:
                every_arm(study, design.size, searched=tried)
            except StudyError as error:
                yield f"'search' would set '{path}' to {_shown(value)}: {error}"
