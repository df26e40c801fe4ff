"""Split rules: what a built-in task is measured on is not what it was trained on, and no two splits are one."""

from __future__ import annotations

from itertools import combinations
from typing import cast

import pytest

from renaissance.api import TaskEntry
from renaissance.data.readers.published import LAYOUTS
from renaissance.data.world.layouts import WRITERS
from renaissance.evaluation.evaluate import held_out
from renaissance.registry import Registry
from tests.data.world_layouts.conftest import Items

TASKS = [cast(TaskEntry, component.entry) for component in Registry().components("task")]
CAPTIONS = ("coco-captions", "flickr30k")
PROBES = {task.name for task in TASKS if not task.trains}
OF_TASKS = sorted({layout for task in TASKS for layout in task.layouts} | set(CAPTIONS))
PARTS = {("test", "test-dev")}  # of VQAv2, as published
IN_WORLD = [layout for layout in OF_TASKS if layout in WRITERS]


def test_every_layout_of_a_task_can_be_prepared() -> None:
    assert set(OF_TASKS) <= set(LAYOUTS)
    assert set(OF_TASKS) - set(IN_WORLD) == {"cifar-10", "glue"}


@pytest.mark.parametrize("layout", IN_WORLD)
def test_what_is_measured_is_not_what_is_trained_on(layout: str, items: Items) -> None:
    splits = items(layout)
    measured = held_out(list(splits))
    trained = [name for name in splits if name not in measured]
    assert measured
    assert bool(trained) == (layout not in PROBES)
    images = {name: {image.name for item in found for image in item.images} for name, found in splits.items()}
    ids = {name: {item.id for item in found} for name, found in splits.items()}
    for one in trained:
        for other in measured:
            assert not images[one] & images[other], (one, other)
            assert not ids[one] & ids[other], (one, other)


@pytest.mark.parametrize("layout", IN_WORLD)
def test_no_two_splits_are_one_and_only_published_parts_share_items(layout: str, items: Items) -> None:
    splits = {name: {item.id for item in found} for name, found in items(layout).items()}
    for one, other in combinations(splits, 2):
        if (one, other) in PARTS:
            assert splits[one] > splits[other]
        else:
            assert not splits[one] & splits[other], (one, other)


@pytest.mark.parametrize("layout", [layout for layout in OF_TASKS if LAYOUTS[layout].counts])
def test_what_is_published_for_a_task_has_a_split_to_measure_apart_from_that_to_train_on(layout: str) -> None:
    splits = [name for name in LAYOUTS[layout].counts if name != "images"]
    assert held_out(splits)
    assert len(set(splits)) == len(splits)
