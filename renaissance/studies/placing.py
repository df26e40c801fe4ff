"""Recipes as workers get them: references become folders, and data that are given take their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from renaissance.errors import StudyError
from renaissance.spec import LIBRARIES
from renaissance.studies.arms import REFERENCE, Design, worlds_of
from renaissance.studies.folder import StudyFolder


def placed(recipe: Mapping[str, Any], data: str | None) -> dict[str, Any]:
    """Return a planned recipe with its references as folders, relative to the study's, so that that may be moved."""
    found = deepcopy(dict(recipe))
    here = StudyFolder(".")
    model = found["start"].get("model")
    if isinstance(model, str) and model.startswith(REFERENCE):
        found["start"]["model"] = f"./{here.run(model.removeprefix(REFERENCE)).as_posix()}"
    elif isinstance(model, str) and Path(model).expanduser().exists():
        found["start"]["model"] = str(Path(model).expanduser().resolve())
    for tower in _towers(found["start"]):
        for name, value in tower["options"].items():  # weights that lie in a folder
            if isinstance(value, str) and Path(value).expanduser().is_dir():
                tower["options"][name] = str(Path(value).expanduser().resolve())
    for place in _sources(found):
        given = place["path"] or data
        if given is not None and not given.startswith(REFERENCE):
            place["path"] = str(Path(given).expanduser().resolve())
    for place, world, layout in worlds_of(found):
        place["path"] = here.prepared(world, layout).as_posix()
    if found.get("store") and not found["store"]["folder"]:
        found["store"]["folder"] = here.features.as_posix()
    return found


def lend_models(recipe: Mapping[str, Any], folder: StudyFolder) -> None:
    """Link the folders that backbones are named by, 'transformers:FOLDER', into that of the study: runs work there."""
    for tower in _towers(recipe["start"]):
        library, _, model = tower["name"].partition(":")
        if library in LIBRARIES and Path(model).is_dir() and not (link := folder.path / model).exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(Path(model).resolve())


def _towers(start: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    return (start[name] for name in ("vision", "text", "base", "donor") if isinstance(start.get(name), dict))


def _sources(recipe: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the places in a recipe that name, or should name, a folder of data."""
    section = recipe["data"]
    parts = [part["data"] for part in section["parts"]] if section["kind"] == "mixture" else [section]
    yield from (part for part in parts if part["kind"] in ("images", "prepared"))
    yield from recipe["evaluation"]["data"].values()


def check_data(design: Design, data: str | None, given: str | None) -> None:
    """Check that what names no data gets some, and that given data are read."""
    lacking = sorted(
        {run.stage for run in design.runs.values() for place in _sources(run.recipe) if place["path"] is None}
    )
    if lacking and data is None:
        stages = ", ".join(f"'{stage}'" for stage in lacking)
        raise StudyError(f"'{design.study.name}' does not say where the images of {stages} are: give --data FOLDER.")
    if given is not None and not lacking:
        raise StudyError(f"'{design.study.name}' names all of its data at preset '{design.preset}': leave --data out.")
