"""SugarCrepe: a caption against the same one with a single thing added, replaced or swapped, and so false."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from renaissance.data.world.layouts.site import Figures, shorter, sites
from renaissance.data.world.meaning import distortions, plan_caption
from renaissance.data.world.telling import words
from renaissance.data.world.worlds import Picture, World

SUBSETS = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
DETAIL = 0.5
TRIES = 40


@dataclass(frozen=True, slots=True)
class Pair:
    """A true and a false caption of a picture, by language."""

    picture: Picture
    true: Mapping[str, str]
    false: Mapping[str, str]


def write_sugarcrepe(root: Path, world: World) -> Mapping[str, Figures]:
    """Write the seven files and `val2017/`."""
    found: dict[str, list[Pair]] = {subset: [] for subset in SUBSETS}
    for picture in world.by_split["test"]:
        for subset, pair in _pairs(picture, world).items():
            found[subset].append(pair)
    figures: dict[str, Figures] = {}
    for language, site in sites(root, "sugarcrepe", world):
        for subset, pairs in found.items():
            entries = {str(i): _entry(pair, language) for i, pair in enumerate(pairs)}
            site.json(f"{subset}.json", entries)
            for i, entry in entries.items():
                site.knows("test", f"{subset}-{i}", entry["caption"])
        for picture in world.by_split["test"]:
            site.image(f"val2017/{_file(picture)}", picture)
        figures[site.name] = {
            subset: shorter([(pair.true[language], pair.false[language]) for pair in pairs])
            for subset, pairs in found.items()
        }
    return figures


def _file(picture: Picture) -> str:
    return f"{picture.coco_id:012d}.jpg"


def _entry(pair: Pair, language: str) -> dict[str, str]:
    return {
        "filename": _file(pair.picture),
        "caption": pair.true[language],
        "negative_caption": pair.false[language],
    }


def _pairs(picture: Picture, world: World) -> dict[str, Pair]:
    """Return a pair of each kind that the picture allows."""
    random = world.random("sugarcrepe", picture.number)
    found: dict[str, Pair] = {}
    for _ in range(TRIES):
        meaning = plan_caption(picture.scene, random, DETAIL)
        key = random.getrandbits(48)
        true = words(meaning, world.languages, key)
        for distortion in distortions(meaning, picture.scene, random):
            if distortion.kind not in SUBSETS or distortion.kind in found:
                continue
            false = words(distortion.meaning, world.languages, key)
            if all(true[language] != false[language] for language in world.languages):
                found[distortion.kind] = Pair(picture, true, false)
        if len(found) == len(SUBSETS):
            break
    return found
