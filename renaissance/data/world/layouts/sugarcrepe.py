"""SugarCrepe: a caption against the same one with a single thing added, replaced or swapped, and so false.

Which of two captions is true must not show from their words. So nothing is changed that only some words go with: what
lies around a thing is the larger one, and what is missing is told in few words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from renaissance.data.world.layouts.site import Figures, shorter, sites
from renaissance.data.world.meaning import Caption, Group, distortions, plan_caption
from renaissance.data.world.scene import PLACES
from renaissance.data.world.telling import words
from renaissance.data.world.worlds import Picture, World

SUBSETS = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
DETAIL = 0.5
TRIES = 40
# how large the two things are, and of which shape, tells which of them it is
TELLING = ("inside", "around", "larger", "smaller")


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
            if distortion.kind not in SUBSETS or distortion.kind in found or shows(meaning, distortion.meaning):
                continue
            false = words(distortion.meaning, world.languages, key)
            if all(true[language] != false[language] for language in world.languages):
                found[distortion.kind] = Pair(picture, true, false)
        if len(found) == len(SUBSETS):
            break
    return found


def shows(true: Caption, false: Caption) -> bool:
    """Return whether the words of two captions of as many things, but for one added, tell which of them is true."""
    pairs = list(zip(true.groups, false.groups, strict=False))
    changed = {i for i, (one, other) in enumerate(pairs) if one != other}
    missing = any(0 in (pairs[i][0].number, pairs[i][1].number) for i in changed)
    moved = any(_extreme(one) != _extreme(other) for one, other in pairs)
    told = any(
        fact.relation in TELLING and (fact != other or not changed.isdisjoint((fact.subject, fact.object)))
        for fact, other in zip(true.facts, false.facts, strict=True)
    )
    return missing or moved or told or _named_anew(false, changed) or _alike(false) > _alike(true) or _crowded(false)


def _extreme(group: Group) -> int | None:
    """Return in how many directions a thing is said to lie off the middle: fewer lie in corners than at an edge."""
    return None if group.place is None else sum(part != "middle" for part in PLACES[group.place])


def _named_anew(caption: Caption, changed: set[int]) -> bool:
    """Whether a thing that a later one stands to is another now, or no longer alone of its shape ("the star")."""
    shapes = [group.noun.shape for group in caption.groups]
    again = {fact.object for fact in caption.facts if fact.object < fact.subject}
    return any(i in changed or shapes.count(shapes[i]) > 1 for i in again)


def _alike(caption: Caption) -> int:
    """Return how many things are of the shape and colour of another one: few are in what is true."""
    return len(caption.groups) - len({(group.noun.shape, group.noun.colour) for group in caption.groups})


def _crowded(caption: Caption) -> bool:
    """Whether two things are said to lie at the same place, where there is hardly room for both."""
    places = [group.place for group in caption.groups if group.place is not None]
    return len(places) > len(set(places))
