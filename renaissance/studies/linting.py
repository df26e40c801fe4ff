"""What is wrong with a study, found before anything runs: arms that are unequal, or equal, and claims about nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from renaissance.errors import StudyError
from renaissance.spec import did_you_mean
from renaissance.studies.arms import Arm, Design
from renaissance.studies.design import Study, stage_of, within

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


def _faults(design: Design) -> Iterator[str]:
    study = design.study
    for one, other in itertools.combinations(design.arms, 2):
        yield from _unequal(study, one, other)
    names = [arm.name for arm in design.arms]
    for hypothesis in study.hypotheses:
        for name in hypothesis.arms:
            if name not in names and name not in _all_arms(study):
                yield f"the hypothesis '{hypothesis.name}' names no arm of this study: '{name}'.{_near(name, names)}"
        for name in hypothesis.arms:
            if name in names:
                yield from _unmeasured(hypothesis.metric, design.arm(name), f"the hypothesis '{hypothesis.name}'")
    if study.reference is not None and study.reference not in _all_arms(study):
        yield f"'reference' names no arm: '{study.reference}'.{_near(study.reference, names)}"
    yield from _unvalidated(design)


def _all_arms(study: Study) -> list[str]:
    crossed = (".".join(levels) for levels in itertools.product(*(factor.levels for factor in study.factors.values())))
    return [*crossed, *study.controls]


# --- equal but for their factors --------------------------------------------------------------------------------------


def _unequal(study: Study, one: Arm, other: Arm) -> Iterator[str]:
    varied = _varied(study, one, other)
    differ = False
    for stage in study.stages:
        if stage not in one.recipes or stage not in other.recipes:
            differ = True
            continue
        for path, first, second in differences(one.recipes[stage], other.recipes[stage], stage):
            differ = True
            if not within(path, varied):
                about = ABOUT.get(path.split(".")[1], "a setting")
                yield (
                    f"the arms '{one.name}' and '{other.name}' differ in {about} ('{path}': {_shown(first)} and "
                    f"{_shown(second)}), which no factor between them varies; make them equal, or name the path in "
                    "'varies' and say why in 'about'."
                )
    if not differ:
        yield f"the arms '{one.name}' and '{other.name}' are the same, setting for setting; leave one out."


def _varied(study: Study, one: Arm, other: Arm) -> tuple[str, ...]:
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


def _shown(value: Any) -> str:
    return "nothing" if value is NOTHING else f"{value!r}"[:80]


# --- hypotheses that can be judged ------------------------------------------------------------------------------------


def _unmeasured(metric: str, arm: Arm, where: str) -> Iterator[str]:
    stage, split, *rest = metric.split("/", 3)
    if stage not in arm.recipes:
        yield f"{where} is about '{metric}', and the arm '{arm.name}' skips the stage '{stage}'."
        return
    if split == "ledger":
        if rest[0] not in LEDGER:
            yield f"{where}: the ledger has no figure '{rest[0]}'; it has: {', '.join(LEDGER)}."
        return
    recipe = arm.recipes[stage]
    tasks = [*recipe["tasks"], *recipe["evaluation"]["tasks"]]
    beside = [f"{name}" for name in recipe["evaluation"]["data"]]
    if rest[0] not in tasks and not beside:
        yield f"{where} is about the task '{rest[0]}', which '{stage}' does not measure; it has: {', '.join(tasks)}."


def _unvalidated(design: Design) -> Iterator[str]:
    """Yield searches and targets that read evaluations in the training which the stage does not make."""
    study = design.study
    asked = [("search", study.search.stage, study.search.metric)] if study.search is not None else []
    asked += [("targets", target.stage, target.metric) for target in study.targets]
    for what, stage, metric in asked:
        for arm in design.arms:
            if stage in arm.recipes and not arm.recipes[stage]["evaluation"]["every"]:
                yield f"'{what}' reads '{metric}', and '{stage}.evaluation.every' is not set; set it."
                break
    if study.search is not None:
        for path in study.search.space:
            if stage_of(path) != study.search.stage:
                yield f"'search' tunes '{path}', which is not of its stage '{study.search.stage}'."


def _near(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name, known) or f" It has: {', '.join(known)}."
