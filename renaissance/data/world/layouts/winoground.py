"""Winoground: two pictures and two captions of the same words; each caption is true of one picture alone.

The second picture has what belongs to two things of a test picture exchanged, so that it is of the same split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from renaissance.data.world.grammar import say
from renaissance.data.world.layouts.site import Figure, Figures, save, sites
from renaissance.data.world.meaning import Caption, Kind, distortions, plan_caption, verdict
from renaissance.data.world.render import render
from renaissance.data.world.scene import Scene, Thing
from renaissance.data.world.telling import words
from renaissance.data.world.worlds import Picture, World

TRIES = 30
DETAIL = 0.4
TAGS: Mapping[Kind, str] = {"swap_att": "Adjective", "swap_obj": "Noun Phrase", "order": "Noun Phrase"}
EXCHANGED = (("colour",), ("texture",), ("shape", "colour"), ("shape", "colour", "texture"))
URL = "https://world.invalid/{name}.png"


@dataclass(frozen=True, slots=True)
class Example:
    """Two scenes, and the captions of each by language. flipped: the picture of the world is the second one."""

    picture: Picture
    changed: Scene
    kind: Kind
    related: bool
    texts: tuple[Mapping[str, str], Mapping[str, str]]
    flipped: bool


def write_winoground(root: Path, world: World) -> Mapping[str, Figures]:
    """Write `examples.jsonl` and `images/`."""
    planned = (_example(picture, world) for picture in world.by_split["test"])
    examples = [example for example in planned if example is not None]
    drawn = {example.picture.number: render(example.changed, world.image_size) for example in examples}
    figures: dict[str, Figures] = {}
    for language, site in sites(root, "winoground", world):
        rows = []
        for number, example in enumerate(examples):
            rows.append(_row(number, example, language))
            own = int(example.flipped)
            site.image(f"images/ex_{number}_img_{own}.png", example.picture)
            save(drawn[example.picture.number], site.place(f"images/ex_{number}_img_{1 - own}.png"))
            site.knows("test", number, [0, 1])
        site.json_lines("examples.jsonl", rows)
        figures[site.name] = {
            "text": Figure("text score", len(rows), 25.0, 0.0, "prefers the same caption for both images"),
            "image": Figure("image score", len(rows), 25.0, 25.0, "draws lots"),
            "group": Figure("group score", len(rows), 16.67, 0.0, "prefers the same caption for both images"),
        }
    return figures


def _example(picture: Picture, world: World) -> Example | None:
    """Return an example with this picture; None if nothing in it can be exchanged so that words tell it."""
    random = world.random("winoground", picture.number)
    scene = picture.scene
    others = list(_exchanged(scene))
    if not others:
        return None
    for _ in range(TRIES):
        meaning = plan_caption(scene, random, DETAIL)
        key = random.getrandbits(48)
        if verdict(meaning, scene) is not True:
            continue
        for distortion in distortions(meaning, scene, random):
            if distortion.kind not in TAGS or not _same_words(meaning, distortion.meaning, key):
                continue
            fitting = [other for other in others if _tells_apart(meaning, distortion.meaning, other)]
            texts = words(meaning, world.languages, key), words(distortion.meaning, world.languages, key)
            if fitting and all(texts[0][language] != texts[1][language] for language in world.languages):
                related = bool(meaning.facts)
                changed = random.choice(fitting)
                return Example(picture, changed, distortion.kind, related, texts, random.random() < 0.5)
    return None


def _exchanged(scene: Scene) -> Iterator[Scene]:
    """Yield the scene with some of what two things look like exchanged; sizes stay, for there is room for no other."""
    for i, one in enumerate(scene.things):
        for j, other in enumerate(scene.things[:i]):
            if scene.relation(i, j) in ("inside", "around"):
                continue
            for names in EXCHANGED:
                changed = list(scene.things)
                changed[i], changed[j] = _given(one, other, names), _given(other, one, names)
                if changed != list(scene.things):
                    yield replace(scene, things=tuple(changed))


def _given(thing: Thing, other: Thing, names: tuple[str, ...]) -> Thing:
    values: dict[str, Any] = {name: getattr(other, name) for name in names}
    return replace(thing, **values)


def _same_words(one: Caption, other: Caption, key: int) -> bool:
    texts = [say(meaning, "en", Random(key)).replace(",", "").split() for meaning in (one, other)]
    return sorted(texts[0]) == sorted(texts[1])


def _tells_apart(meaning: Caption, changed: Caption, other: Scene) -> bool:
    return verdict(changed, other) is True and verdict(meaning, other) is False


def _row(number: int, example: Example, language: str) -> dict[str, Any]:
    first, second = (texts[language] for texts in (example.texts[::-1] if example.flipped else example.texts))
    names = [f"ex_{number}_img_{side}" for side in (0, 1)]
    return {
        "id": number,
        "image_0": names[0],
        "image_1": names[1],
        "caption_0": first,
        "caption_1": second,
        "tag": TAGS[example.kind],
        "secondary_tag": "",
        "num_main_preds": 1 if example.related else 0,
        "collapsed_tag": "Relation" if example.related else "Object",
    }
