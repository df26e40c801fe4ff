"""From the data section of a recipe to the records that a run trains and is tested on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from renaissance import recipe
from renaissance.api import Item
from renaissance.data.hashing import stable_hash
from renaissance.data.prepared import Prepared
from renaissance.data.readers.tabular import read_images
from renaissance.data.records import DataSet, Record, Sample
from renaissance.data.splits import split_records
from renaissance.data.world.write import prepare_world
from renaissance.errors import DataError


def load_data(
    data: recipe.Data,
    *,
    cache: Path,
    on_bad_sample: recipe.OnBadSample,
    validation: int,
    items: bool = False,
) -> DataSet:
    """Return the samples of a recipe; what was found and guessed is in `DataSet.facts`.

    cache: a folder for generated scenes, and for images taken out of Parquet files. validation: samples to set aside of
    those to train on, at most a quarter of them. items: give items of prepared data, and not images with captions.

    Raises:
        DataError: the data are missing, lack a column, or are not enough.
        SampleError: a row cannot be used, and `on_bad_sample` is "error".
    """
    if isinstance(data, recipe.WorldData):
        data = _of_world(data, cache)
    if data.path is None:
        raise DataError("The recipe does not say where its data are. Try: --data FOLDER, or set data.path.")
    if isinstance(data, recipe.PreparedData):
        return _prepared(data, Path(data.path).expanduser(), validation, items=items)
    if items:
        raise DataError(
            "These tasks learn from items with labels, and the data are images with captions. Prepare a corpus that "
            "has labels (renaissance data layouts lists them), and set data.kind to 'prepared'."
        )
    read = read_images(Path(data.path).expanduser(), data.columns, cache=cache, on_bad_sample=on_bad_sample)
    found = split_records(read.records, data, validation=validation)
    captions = sum(len(record.captions) for record in read.records)
    size = f"{len(read.records):,} images with {captions:,} captions"
    return replace(found, facts=(*read.facts, size, *found.facts), skipped=read.skipped)


def _of_world(data: recipe.WorldData, cache: Path) -> recipe.ImagesData:
    """Generate the scenes, if they are not there yet; return how to read them."""
    return recipe.ImagesData(
        path=str(prepare_world(data, cache)),
        columns=recipe.Columns(image="image", caption="caption", id="id"),
        train=recipe.Split(where={"split": "train"}),
        hold_out=(),
        splits={"test": recipe.Split(where={"split": "test"})},
        seed=data.seed,
    )


def _prepared(data: recipe.PreparedData, folder: Path, validation: int, *, items: bool) -> DataSet:
    """Return the samples of prepared data: its items, or the images with captions that they are."""
    prepared = Prepared(folder)
    names = data.splits or tuple(name for name in prepared.splits if name != data.train)

    def samples(split: str) -> tuple[Sample, ...]:
        return tuple(item if items else captioned(item) for item in prepared.items(split))

    train = samples(data.train)
    drawn = sorted(range(len(train)), key=lambda i: stable_hash("validation", data.seed, train[i].id))
    kept = set(drawn[: min(validation, len(train) // 4)])
    splits = {name: samples(name) for name in names}
    return DataSet(
        train=tuple(sample for i, sample in enumerate(train) if i not in kept),
        validation=tuple(train[i] for i in sorted(kept)),
        splits=splits,
        facts=(
            f"{prepared.manifest['layout']}: {len(train) - len(kept):,} samples to train on",
            *(f"split '{name}': {len(held):,} samples" for name, held in splits.items()),
        ),
    )


def captioned(item: Item) -> Record:
    """Return an item as an image with its captions.

    Raises:
        DataError: it is not one image with texts.
    """
    if len(item.images) != 1 or not item.texts:
        raise DataError(
            f"{item.row}: '{item.id}' has {len(item.images)} images and {len(item.texts)} texts, and tasks on images "
            "with captions need one image and a text. Choose a task that this layout is for."
        )
    return Record(item.id, item.images[0], item.texts, item.row, item.fields)
