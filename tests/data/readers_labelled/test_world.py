"""What the world writes in the published layouts, the readers read: each item, with the answer of its scene graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renaissance.api import Item
from renaissance.data.prepared import Prepared
from renaissance.data.readers.published_labelled import LABELLED
from renaissance.data.world.build import write_world

Prepare = Callable[..., Prepared]
# text without pictures, pixels without files and users' own items are no part of a world
WRITTEN = tuple(layout.name for layout in LABELLED if layout.name not in ("glue", "cifar-10", "items"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("worlds") / "world"
    write_world(out, size=40, seed=5, languages=("en", "de"), layouts=WRITTEN)
    return out


@pytest.mark.parametrize("folder", [*WRITTEN, "vqav2-de", "aro-de", "refcoco-de", "sugarcrepe-de"])
def test_each_item_has_the_answer_of_the_scene_graph(world: Path, prepared: Prepare, folder: str) -> None:
    data = prepared(folder.removesuffix("-de"), world / folder)
    truth = json.loads((world / folder / "oracle.json").read_text(encoding="utf-8"))["answers"]
    assert set(data.splits) == set(truth)
    assert data.manifest["skipped"]["count"] == 0
    for split, answers in truth.items():
        items = {item.id: item for item in data.items(split)}
        assert items.keys() == answers.keys()
        wrong = [key for key, answer in answers.items() if not _agrees(items[key], answer)]
        assert wrong == []


def _agrees(item: Item, answer: Any) -> bool:
    """Return whether an item says what the scene graph does; the splits of VQAv2 that test have no answers."""
    if isinstance(answer, list):  # Winoground: the caption of each image
        return answer == [0, 1] and len(item.images) == len(item.texts) == 2
    if item.target is None:
        return item.label in (answer, None)
    if isinstance(answer, int):
        return item.target == answer
    return item.texts[item.target] == answer or item.texts[0].split() == _plain(answer).split()


def _plain(caption: str) -> str:
    """Return a caption as the tests of word order have it."""
    return "".join(" " if mark in '.!"()*#:;~' else mark for mark in caption.lower())
