"""The trials of a search inside an arm: the runs that each takes, and what was noted of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from renaissance.data.prepared import manifest_of
from renaissance.studies.arms import REFERENCE, SEEDS_BELOW, Design, PlannedRun, expand, started_from, worlds_of
from renaissance.studies.design import Search, Settings, Study
from renaissance.studies.folder import StudyFolder

# seeds of trials; those of the study's runs are all below, so that nothing is tuned on them
FIRST_SEED = SEEDS_BELOW
# updates between evaluations: there is the one after the last update
ONCE = 2**40
# what corpora call the split that models are chosen by
VALIDATION = ("val", "validation", "dev")


@dataclass(frozen=True, slots=True)
class Trial:
    """Settings that were tried, the run that did, and the score that it had, or None.

    failed: the run that failed, which may be one that it starts from; None: all ran.
    """

    number: int
    settings: Settings
    run: str
    value: float | None
    failed: str | None = None

    def facts(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Searched:
    """What the trials of an arm are made of. alone: the study with this arm alone; data: the folder that was given."""

    arm: str
    design: Design
    search: Search
    alone: Study
    folder: StudyFolder
    data: str | None


def trials_of(folder: StudyFolder, arm: str) -> list[Trial]:
    """Return the trials of an arm that have ended, as they were noted; none where nothing is searched."""
    place = folder.search(arm)
    noted = json.loads(place.read_text(encoding="utf-8"))["trials"] if place.is_file() else []
    return [Trial(**trial) for trial in noted]


def runs_of_trial(searched: Searched, settings: Settings, number: int) -> Iterator[PlannedRun]:
    """Yield the runs that a trial takes: those of earlier stages, which trials share where they can, then its own."""
    design, search, arm = searched.design, searched.search, searched.arm
    recipes = expand(searched.alone, design.preset, searched={arm: settings}).arm(arm).recipes
    stages = [search.stage]
    while (earlier := started_from(recipes[stages[0]])) is not None:
        stages.insert(0, earlier)
    after: str | None = None
    for stage in stages:
        recipe: dict[str, Any] = deepcopy(dict(recipes[stage]))
        judged = stage == search.stage
        recipe = _judged(recipe, searched) if judged else recipe
        recipe["seed"] = FIRST_SEED + number if judged else FIRST_SEED
        if after is not None:
            recipe["start"]["model"] = f"{REFERENCE}{after}"
        run = PlannedRun("", stage, (recipe["seed"],), recipe, after)
        run = replace(run, id=f"{stage}-trial{f'{number}' if judged else ''}-{_digest(design, recipe)}")
        yield run
        after = run.id


def alone(design: Design, arm: str) -> Study:
    """Return the study with this arm and one seed alone, which is soon expanded."""
    size = design.size.model_copy(update={"arms": (arm,), "seeds": {}})
    seeds = dict.fromkeys(design.study.seeds, 1)
    return design.study.model_copy(update={"presets": {design.preset: size}, "seeds": seeds})


def _judged(recipe: dict[str, Any], searched: Searched) -> dict[str, Any]:
    """Return the recipe of a trial, which measures what it is judged by, and as little else as a run can."""
    evaluation: dict[str, Any] = recipe["evaluation"]
    evaluation |= {"data": {}, "untrained": False, "shuffled": False, "blind": None, "bridge": None, "primary": None}
    evaluation |= {"every": ONCE} | ({"outcomes": False} if "outcomes" in evaluation else {})
    split = _validation_split(recipe["data"], searched)
    if split is not None:  # what is for the test is then not even measured
        recipe["data"]["splits"] = evaluation["splits"] = [split]
    kept = evaluation["splits"]
    evaluation["waive"] = [name for name in evaluation["waive"] if "/" not in name and (not kept or name in kept)]
    return {**recipe, "keep_best": searched.search.metric, "save_best": False, "trackers": []}


def _validation_split(data: Mapping[str, Any], searched: Searched) -> str | None:
    """Return the split of prepared data that models are chosen by, if there is one."""
    if data["kind"] != "prepared":
        return None
    made = next((searched.folder.prepared(world, layout) for _, world, layout in worlds_of({"data": data})), None)
    given = data["path"] or searched.data
    assert given is not None, "who opened the folder has checked it"
    splits = manifest_of(made or Path(given).expanduser())["splits"]
    return next((name for name in VALIDATION if name in splits and name not in _named(data["train"])), None)


def _digest(design: Design, recipe: Mapping[str, Any]) -> str:
    """Return what all that decides a trial is known by."""
    named = {world for _, world, _ in worlds_of(recipe)}
    worlds = {name: design.study.worlds[name].model_dump(mode="json", exclude={"layouts"}) for name in named}
    content = {"recipe": {key: value for key, value in recipe.items() if key != "name"}, "worlds": worlds}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def _named(splits: str | list[str]) -> list[str]:
    return [splits] if isinstance(splits, str) else splits
