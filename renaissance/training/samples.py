"""Which samples a run trains and is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from renaissance.data.cache import cache_folder
from renaissance.data.load import load_data
from renaissance.data.records import DataSet
from renaissance.errors import DataError
from renaissance.evaluation.evaluate import usable
from renaissance.recipe import Recipe
from renaissance.spec import shown


def select_samples(recipe: Recipe, *, items: bool = False) -> DataSet:
    """Load a recipe's data; keep the splits that it measures, and the samples that can be used.

    items: samples are items with labels, and not images with captions.

    With `on_bad_sample: skip` every image that is measured or stored is decoded once, so that none is met later.

    Raises:
        DataError: a split is missing, or nothing of it can be used.
        SampleError: a row cannot be used, and `on_bad_sample` is "error".
    """
    validation = recipe.evaluation.validation if recipe.evaluation.every else 0
    loaded = load_data(
        recipe.data, cache=cache_folder(), on_bad_sample=recipe.on_bad_sample, validation=validation, items=items
    )
    names = recipe.evaluation.splits or tuple(loaded.splits)
    missing = [name for name in names if name not in loaded.splits]
    if missing:
        known = ", ".join(loaded.splits) or "none"
        raise DataError(f"The data have no split '{shown(missing[0])}'; set evaluation.splits to some of: {known}.")
    skipped = list(loaded.skipped)

    def good(name: str, records: Sequence[Any]) -> tuple[Any, ...]:
        kept, lines = usable(records, recipe.on_bad_sample)
        skipped.extend(lines)
        if not kept:
            raise DataError(f"No sample of '{name}' can be used; leave it out, or mend its images.")
        return tuple(kept)

    splits = {name: good(name, loaded.splits[name]) for name in names}
    lonely = next((name for name, records in splits.items() if len(records) < 2), None)
    if lonely is not None and not items:
        raise DataError(f"The split '{lonely}' has one image, and measuring takes two; raise its share.")
    return DataSet(
        train=good("train", loaded.held) if recipe.store else loaded.train,
        validation=good("validation", loaded.validation) if recipe.evaluation.every else (),
        splits=splits,
        facts=loaded.facts,
        skipped=tuple(skipped),
    )
