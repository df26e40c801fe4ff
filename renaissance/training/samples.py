"""Which samples a run trains and is measured on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from renaissance.data.budget import check_budget
from renaissance.data.cache import cache_folder
from renaissance.data.load import load_data
from renaissance.data.records import DataSet
from renaissance.errors import DataError
from renaissance.evaluation.splits import usable
from renaissance.recipe import Recipe
from renaissance.spec import shown


def select_samples(recipe: Recipe, *, items: bool = False) -> DataSet:
    """Load a recipe's data; keep the splits that it measures, and the samples that can be used.

    items: samples are items with labels, and not images with captions.

    With `on_bad_sample: skip` every image that is measured is decoded once, so that none is met later.

    Raises:
        DataError: a split is missing, nothing of it can be used, or less than `skip_budget` asks for.
        SampleError: a row cannot be used, and `on_bad_sample` is "error".
    """
    validation = recipe.evaluation.validation if recipe.evaluation.every else 0
    loaded = load_data(
        recipe.data,
        cache=cache_folder(),
        on_bad_sample=recipe.on_bad_sample,
        validation=validation,
        items=items,
        files_gone=recipe.store is not None,
    )
    names = recipe.evaluation.splits or tuple(loaded.splits)
    missing = [name for name in names if name not in loaded.splits]
    if missing:
        known = ", ".join(loaded.splits) or "none"
        raise DataError(f"The data have no split '{shown(missing[0])}'; set evaluation.splits to some of: {known}.")
    skipped = list(loaded.skipped)
    read = loaded.distinct + len(loaded.validation) + sum(map(len, loaded.splits.values())) + len(skipped)
    within_budget(recipe, skipped, read, "rows of the data")

    def good(name: str, records: Sequence[Any]) -> tuple[Any, ...]:
        kept, lines = usable(records, recipe.on_bad_sample)
        skipped.extend(lines)
        if not kept:
            raise DataError(f"No sample of '{name}' can be used; leave it out, or mend its images.")
        within_budget(recipe, lines, len(records), f"samples of '{name}'")
        return tuple(kept)

    splits = {name: good(name, loaded.splits[name]) for name in names}
    lonely = next((name for name, records in splits.items() if len(records) < 2), None)
    if lonely is not None and not items:
        raise DataError(f"The split '{lonely}' has one image, and measuring takes two; raise its share.")
    return DataSet(
        train=loaded.train,
        validation=good("validation", loaded.validation) if recipe.evaluation.every else (),
        splits=splits,
        facts=loaded.facts,
        skipped=tuple(skipped),
    )


def within_budget(recipe: Recipe, left_out: Collection[str], of: int, what: str) -> None:
    """Check that no more of so many samples are left out than the recipe allows; left_out: a line for each.

    Raises:
        DataError: more are; the message has both counts and the key.
    """
    if left_out:
        check_budget(len(left_out), of, recipe.skip_budget, what=what, first=next(iter(left_out)))
