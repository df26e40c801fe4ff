"""NLVR2: sentences about two pictures. Each is said of four pairs and true of two: the text alone tells nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from renaissance.data.world.layouts.site import Figures, Site, lots, sites
from renaissance.data.world.statements import Statement, plan_statement, say_statement, statement_true
from renaissance.data.world.worlds import Picture, Split, World

SPLITS: Mapping[str, Split] = {"train": "train", "dev": "val", "test1": "test"}
PAIRS = 4
TRIES = 40
DIRECTORIES = 100
URL = "https://world.invalid/{name}"
Pair = tuple[Picture, Picture]


@dataclass(frozen=True, slots=True)
class Sheet:
    """Four pairs of pictures with a sentence that is true of two of them."""

    number: int
    pairs: tuple[Pair, ...]
    statement: Statement
    texts: Mapping[str, str]


def write_nlvr2(root: Path, world: World) -> Mapping[str, Figures]:
    """Write `train.json`, `dev.json`, `test1.json` and the images below `images/`."""
    sheets = {name: _sheets(world, name) for name in SPLITS}
    figures: dict[str, Figures] = {}
    for language, site in sites(root, "nlvr2", world):
        for name, found in sheets.items():
            rows = [_row(site, name, sheet, i, language) for sheet in found for i in range(PAIRS)]
            site.json_lines(f"{name}.json", rows)
        figures[site.name] = {name: lots("accuracy", PAIRS * len(sheets[name]), 2) for name in ("dev", "test1")}
    return figures


def _sheets(world: World, name: str) -> list[Sheet]:
    """Return as many sheets as there are pictures."""
    pictures = world.by_split[SPLITS[name]]
    found = []
    for number in range(len(pictures)):
        random = world.random("sheet", name, number)
        pairs, statement = _plan(pictures, random)
        key = random.getrandbits(48)
        texts = {language: say_statement(statement, language, Random(key)) for language in world.languages}
        found.append(Sheet(number, pairs, statement, texts))
    return found


def _plan(pictures: tuple[Picture, ...], random: Random) -> tuple[tuple[Pair, ...], Statement]:
    """Return four different pairs and a sentence that is true of two of them."""
    while True:
        pairs: list[Pair] = []
        while len(pairs) < PAIRS:
            left, right = random.sample(pictures, 2)
            if (left, right) not in pairs:
                pairs.append((left, right))
        scenes = [(left.scene, right.scene) for left, right in pairs]
        for i in range(TRIES):
            statement = plan_statement(scenes[i % PAIRS], random.random() < 0.5, random)
            if 2 * sum(statement_true(statement, pair) for pair in scenes) == PAIRS:
                return tuple(pairs), statement


def _row(site: Site, name: str, sheet: Sheet, i: int, language: str) -> dict[str, Any]:
    """Put the two images of a pair in their place, and return its line."""
    left, right = sheet.pairs[i]
    stem, directory = f"{name}-{sheet.number}-{i}", sheet.number % DIRECTORIES
    folder = f"images/train/{directory}" if name == "train" else f"images/{name}"
    for side, picture in enumerate((left, right)):
        site.image(f"{folder}/{stem}-img{side}.png", picture)
    label = str(statement_true(sheet.statement, (left.scene, right.scene)))
    site.knows(name, f"{stem}-0", label)
    row: dict[str, Any] = {
        "validation": {},
        "sentence": sheet.texts[language],
        "left_url": URL.format(name=left.number),
        "right_url": URL.format(name=right.number),
        "writer": "0",
        "synset": "shape",
        "query": "shapes",
        "identifier": f"{stem}-0",
        "label": label,
    }
    return {**row, "directory": directory} if name == "train" else {**row, "extra_validations": {}}
