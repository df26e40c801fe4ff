"""The generated worlds of a study: written and prepared once, for all of its runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path

from renaissance.data.prepare import prepare
from renaissance.data.prepared import is_prepared
from renaissance.data.world.build import write_world
from renaissance.data.world.layouts import WRITERS
from renaissance.durable import write_atomically
from renaissance.errors import StudyError
from renaissance.progress import Progress, Silent
from renaissance.studies.design import Study, World
from renaissance.studies.folder import StudyFolder

ASKED = "asked.json"


def made(
    study: Study, folder: StudyFolder, needed: Collection[str], progress: Progress | None = None
) -> dict[str, Path]:
    """Make the data 'world/layout' that are needed, those that are not there yet; return the folder of each.

    What a kill left half-made is made anew.

    Raises:
        StudyError: the folder holds a world of this name that was asked for otherwise.
        SpecError: there is no such layout.
    """
    found: dict[str, Path] = {}
    for name in sorted({one.partition("/")[0] for one in needed}):
        layouts = sorted(one.partition("/")[2] for one in needed if one.partition("/")[0] == name)
        _check_asked(study.worlds[name], folder.world(name))
        found |= _made(name, study.worlds[name], folder, layouts, progress or Silent())
    return found


def _made(name: str, world: World, folder: StudyFolder, layouts: list[str], progress: Progress) -> dict[str, Path]:
    places = {layout: folder.prepared(name, layout) for layout in layouts}
    missing = [layout for layout, place in places.items() if not is_prepared(place)]
    if missing:
        progress.say(f"Making the world '{name}' of {world.size:,} scenes: {', '.join(missing)}")
        raw = _written(world, folder.world(name), missing)
        for layout in missing:
            shutil.rmtree(places[layout], ignore_errors=True)
            prepare(_without_language(layout, world), raw / layout, places[layout])
    return {f"{name}/{layout}": place for layout, place in places.items()}


def _written(world: World, place: Path, layouts: list[str]) -> Path:
    """Write the scenes in all layouts of the world, unless they are there; return their folder."""
    raw = place / "world"
    for left in place.glob(".world-*"):
        shutil.rmtree(left, ignore_errors=True)
    if not all((raw / layout).is_dir() for layout in layouts):
        shutil.rmtree(raw, ignore_errors=True)
        base = sorted({_without_language(layout, world) for layout in world.layouts})
        write_world(
            raw,
            world.size,
            world.seed,
            world.languages,
            base,
            image_size=world.image_size,
            kinds=world.kinds.chosen,
            compositional=world.compositional,
        )
    return raw


def _without_language(layout: str, world: World) -> str:
    """Return the layout of a folder: 'vqav2' is in the first language, 'vqav2-de' in another one."""
    others = (layout.removesuffix(f"-{language}") for language in world.languages if layout.endswith(f"-{language}"))
    return layout if layout in WRITERS else next((base for base in others if base in WRITERS), layout)


def _check_asked(world: World, place: Path) -> None:
    asked = world.model_dump(mode="json", exclude={"layouts"})  # a further layout is of the same scenes
    try:
        before = json.loads((place / ASKED).read_text(encoding="utf-8"))
    except FileNotFoundError:
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(place / ASKED, json.dumps(asked, indent=1) + "\n")
        return
    except ValueError:
        before = {}
    differ = [key for key in asked if before.get(key) != asked[key]]
    if differ:
        told = ", ".join(f"{key} {before.get(key)} and not {asked[key]}" for key in differ)
        raise StudyError(f"The world in '{place}' was made with {told}; choose another --out for this study.")
