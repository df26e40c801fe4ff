"""The stores of a run: what they hold is decided by its recipe, its model and its data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from renaissance.api import MODALITIES, Modality
from renaissance.assemble import Assembly
from renaissance.cost.flops import StepCount
from renaissance.data.cache import cache_folder
from renaissance.data.decode import read_record
from renaissance.data.readers.sources import FileImage
from renaissance.data.records import DataSet
from renaissance.errors import SpecError
from renaissance.features.frozen import Stores, Wanted, frozen_stores, wanted
from renaissance.features.parts import FEWEST_BLOCKS, Stored, stored_parts
from renaissance.features.views import Reading
from renaissance.models.two_tower import TwoTower
from renaissance.progress import Progress
from renaissance.recipe import Recipe, validate_recipe
from renaissance.recipe.store import Store
from renaissance.registry import Registry
from renaissance.training.samples import select_samples
from renaissance.training.stages import Stage, always_frozen, stages_of
from renaissance.training.start import start
from renaissance.uses import reads_items, select_tasks

DTYPES: Mapping[str, torch.dtype | None] = {
    "exact": None,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


def store_folder(store: Store | None) -> Path:
    """Return where stores are kept."""
    chosen = store.folder if store is not None else None
    return Path(chosen).expanduser() if chosen else cache_folder() / "features"


def check_store(recipe: Recipe, assembly: Assembly, data: DataSet, stages: Sequence[Stage]) -> None:
    """Refuse a store that could hold nothing, or that a task could not learn from.

    Raises:
        SpecError: naming what cannot be.
        SampleError: an image file is not there, and images are not what is stored.
    """
    if recipe.store is None:
        return
    parts = parts_of(recipe, assembly, stages)
    if "vision" not in parts:
        _check_images(data)
    for name in recipe.tasks:
        if "vision" in parts and hasattr(assembly.tasks[name], "mask_token"):
            raise SpecError(
                f"'{name}' hides patches of the images, other ones in each step, so a store of what "
                f"'{parts['vision'].name}' gives would be of no use to it; leave '{name}' or 'store' out."
            )


def _check_images(data: DataSet) -> None:
    """Check that the image files are there; `load_data` did not, as they might not have been needed."""
    for sample in (*data.held, *data.validation, *(sample for split in data.splits.values() for sample in split)):
        image = getattr(sample, "image", None)
        if isinstance(image, FileImage) and not os.path.isfile(image.path):
            read_record(sample)


def parts_of(recipe: Recipe, assembly: Assembly, stages: Sequence[Stage]) -> dict[Modality, Stored]:
    """Return what of a model its recipe stores: what holds still from the input on in every stage.

    Raises:
        SpecError: there is nothing that could be stored.
    """
    assert recipe.store is not None
    encoder, depths = assembly.encoder, None
    if isinstance(encoder, TwoTower):
        depths = _depths(encoder, stages)
        if not _storable(depths) and _storable(_depths(encoder, stages[:1])):
            raise SpecError(
                "'store' keeps what frozen towers give in every stage of 'freezing', and its stages thaw all that "
                "could be stored; keep a tower frozen in every stage, or leave 'store' out."
            )
    return stored_parts(encoder, DTYPES[recipe.store.dtype], depths)


def _depths(encoder: TwoTower, stages: Sequence[Stage]) -> dict[Modality, int | None]:
    """Return how many first blocks of each tower hold still in every one of these stages; None: the whole tower."""
    still = always_frozen(encoder, stages)
    return {
        modality: None if still[modality].whole else encoder.resumable(modality, still[modality].blocks or 0)
        for modality in MODALITIES
    }


def _storable(depths: Mapping[Modality, int | None]) -> bool:
    return any(depth is None or depth >= FEWEST_BLOCKS for depth in depths.values())


def wishes_of(
    recipe: Recipe, assembly: Assembly, data: DataSet, stages: Sequence[Stage], progress: Progress
) -> dict[Modality, Wanted]:
    """Return what the stores of a run must hold.

    Raises:
        SampleError: an image cannot be read, and never was.
    """
    tasks: list[Any] = [assembly.tasks[name] for name in recipe.tasks]
    reading = Reading(
        recipe.seed,
        recipe.augmentation,
        regions=any(getattr(task, "regions", False) for task in tasks),
        paired=any(getattr(task, "paired", False) for task in tasks),
        plain=recipe.evaluation.bridge is not None,
    )
    return wanted(parts_of(recipe, assembly, stages), data, reading, store_folder(recipe.store), progress)


def open_stores(
    recipe: Recipe,
    assembly: Assembly,
    data: DataSet,
    stages: Sequence[Stage],
    progress: Progress,
    first: Callable[[], AbstractContextManager[None]],
) -> Stores:
    """Return the stores of a run, built as far as they are not there; none where its recipe asks for none.

    first: a context that the main process goes through before the others, which then open what it built.
    """
    if recipe.store is None:
        return Stores()
    assembly.eval()
    with first():
        return build_stores(wishes_of(recipe, assembly, data, stages, progress), store_folder(recipe.store), progress)


def build_stores(wishes: Mapping[Modality, Wanted], folder: Path, progress: Progress) -> Stores:
    """Run what is frozen over the samples that are not stored yet, count what that takes, and return the stores.

    Raises:
        FeatureStoreError, OutputError: as `frozen_stores` raises them.
    """
    with StepCount(trains=False) as count:
        return frozen_stores(wishes, folder, progress, lambda: count.taken.forward)


def wishes_of_recipe(recipe: Recipe, registry: Registry, progress: Progress) -> dict[Modality, Wanted]:
    """Build the model of a recipe and read its data; return what its stores must hold, without a run.

    A recipe that asks for no store is taken as one that asks for the default one.

    Raises:
        SpecError: there is nothing that could be stored.
        DataError, SampleError: the data are not what the recipe says.
    """
    chosen, assembly, data, stages = _ready(recipe, registry)
    return wishes_of(chosen, assembly, data, stages, progress)


def keys_of_recipe(recipe: Recipe, registry: Registry) -> set[str]:
    """Return the keys of the stores that a recipe uses; its model is built, and its images are not read.

    Raises:
        SpecError, DataError: as `wishes_of_recipe` raises them.
    """
    chosen, assembly, _, stages = _ready(recipe, registry)
    return {part.key() for part in parts_of(chosen, assembly, stages).values()}


def _ready(recipe: Recipe, registry: Registry) -> tuple[Recipe, Assembly, DataSet, list[Stage]]:
    """Return a recipe that has a store, its model where a run would have it, its data, and its stages."""
    tasks = select_tasks(recipe, registry)
    chosen = tasks.named(validate_recipe({**recipe.dump(), "store": (recipe.store or Store()).model_dump()}))
    data = select_samples(chosen, items=reads_items(tasks, registry))
    assembly = start(chosen, tasks, registry, data.train)[0]
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    assembly.eval().to(device)
    stages = stages_of(assembly, chosen.freezing)
    check_store(chosen, assembly, data, stages)
    return chosen, assembly, data, stages
