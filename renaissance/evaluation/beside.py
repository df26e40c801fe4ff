"""Further data that a recipe measures the trained model on: probes, zero-shot classification, retrieval elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from renaissance.assemble import Assembly
from renaissance.data.prepared import Prepared
from renaissance.data.records import DataSet
from renaissance.errors import CapabilityError
from renaissance.evaluation.choosing import chosen_measures
from renaissance.evaluation.evaluate import evaluate, measured_splits
from renaissance.evaluation.leaks import Shared, check_waivers, refuse_leaks, trained_images
from renaissance.evaluation.splits import SplitScores
from renaissance.progress import Progress
from renaissance.recipe import Recipe
from renaissance.registry import Registry


def check_beside(recipe: Recipe, assembly: Assembly, data: DataSet, registry: Registry) -> list[Shared]:
    """Return what the further data of a recipe share with its training, all of it waived or standard in the field.

    Raises:
        CapabilityError: the model cannot be measured on some.
        DataError: they cannot be read, have no such split, or share images with the training that no waiver names.
        SpecError: an option of a task is wrong, or a waiver names a split that shares nothing.
    """
    waive = {name for name in recipe.evaluation.waive if name.partition("/")[0] in recipe.evaluation.data}
    trained, found = trained_images(recipe.data, data.train), []
    for name, other in recipe.evaluation.data.items():
        prepared = Prepared(Path(other.path).expanduser())
        layout = str(prepared.manifest["layout"])
        try:
            chosen_measures(assembly, other.tasks or None, layout=layout, registry=registry)
        except CapabilityError as error:
            raise CapabilityError(f"evaluation.data.{name}: {error}") from None
        for split in measured_splits(other.path, other.splits or None):
            label = f"{name}/{split}"
            shared = trained.shared(prepared.items(split), (layout, split), name=label, waived=label in waive)
            found += [shared] if shared is not None else []
    refuse_leaks(found)
    check_waivers(waive, found)
    return found


def measure_beside(recipe: Recipe, assembly: Assembly, registry: Registry, progress: Progress) -> list[SplitScores]:
    """Return the scores of the trained model on the further data of its recipe."""
    found: list[SplitScores] = []
    for name, other in recipe.evaluation.data.items():
        scores = evaluate(
            assembly, other.path, tasks=other.tasks or None, splits=other.splits or None,
            batch_size=recipe.evaluation.batch_size, on_bad_sample=recipe.on_bad_sample,
            blind=recipe.evaluation.shuffled, registry=registry, progress=progress,
        )  # fmt: skip
        found += [replace(one, data=name) for one in scores]
    return found
