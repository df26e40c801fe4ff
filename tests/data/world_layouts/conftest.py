from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from renaissance.api import Item
from renaissance.data.prepare import prepare
from renaissance.data.prepared import Prepared
from renaissance.data.world.build import write_world

SIZE, SEED = 60, 5
LANGUAGES = ("en", "de", "es")


@dataclass(frozen=True)
class Written:
    """A world on the disk."""

    root: Path
    manifest: dict[str, Any]

    def folder(self, layout: str, language: str = "en") -> Path:
        return self.root / (layout if language == "en" else f"{layout}-{language}")

    def oracle(self, layout: str, language: str = "en") -> dict[str, dict[str, Any]]:
        """The answers of the scene graph, by split and id."""
        whole = json.loads((self.folder(layout, language) / "oracle.json").read_text())
        assert (whole["layout"], whole["language"]) == (layout, language)
        answers: dict[str, dict[str, Any]] = whole["answers"]
        return answers

    def figure(self, layout: str, split: str, language: str = "en") -> dict[str, Any]:
        """What the manifest states of a split or part."""
        figure: dict[str, Any] = self.manifest["figures"][self.folder(layout, language).name][split]
        return figure


Items = Callable[..., dict[str, list[Item]]]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A small world in all layouts and languages."""
    root = tmp_path_factory.mktemp("world") / "out"
    return Written(root, write_world(root, SIZE, SEED, LANGUAGES))


@pytest.fixture(scope="session")
def items(world: Written, tmp_path_factory: pytest.TempPathFactory) -> Items:
    """The items of a layout by split, as its reader and the preparation give them."""
    folder = tmp_path_factory.mktemp("prepared")

    @cache
    def read(layout: str, language: str) -> dict[str, list[Item]]:
        out = folder / world.folder(layout, language).name
        prepare(layout, world.folder(layout, language), out)
        found = Prepared(out)
        return {split: list(found.items(split)) for split in found.splits}

    return lambda layout, language="en": read(layout, language)
