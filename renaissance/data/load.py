"""From the data section of a recipe to the records that a run trains and is tested on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from renaissance import recipe
from renaissance.data.readers.tabular import read_images
from renaissance.data.records import DataSet
from renaissance.data.splits import split_records
from renaissance.data.world.write import prepare_world
from renaissance.errors import DataError


def load_data(
    data: recipe.WorldData | recipe.ImagesData,
    *,
    cache: Path,
    on_bad_sample: recipe.OnBadSample,
    validation: int,
) -> DataSet:
    """Return the samples of a recipe; what was found and guessed is in `DataSet.facts`.

    cache: a folder for generated scenes, and for images taken out of Parquet files. validation: samples to set aside of
    those to train on, at most a quarter of them.

    Raises:
        DataError: the data are missing, lack a column, or are not enough.
        SampleError: a row cannot be used, and `on_bad_sample` is "error".
    """
    if isinstance(data, recipe.WorldData):
        data = _of_world(data, cache)
    if data.path is None:
        raise DataError("The recipe does not say where its data are. Try: --data FOLDER, or set data.path.")
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
