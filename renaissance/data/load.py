"""From the data section of a recipe to the records that a run trains and is tested on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from renaissance.api import Item
from renaissance.data.hashing import stable_hash
from renaissance.data.mixtures import Mixture
from renaissance.data.prepared import Prepared
from renaissance.data.readers.tabular import read_images
from renaissance.data.records import DataSet, Record, Sample
from renaissance.data.sampling import Feed
from renaissance.data.splits import split_records
from renaissance.data.streams import Stream, open_stream
from renaissance.data.world.write import prepare_world
from renaissance.errors import DataError
from renaissance.recipe.data import Columns, Data, ImagesData, MixtureData, PreparedData, Split, StreamData, WorldData
from renaissance.recipe.values import OnBadSample


def load_data(
    data: Data,
    *,
    cache: Path,
    on_bad_sample: OnBadSample,
    validation: int,
    items: bool = False,
    files_gone: bool = False,
) -> DataSet:
    """Return the samples of a recipe; what was found and guessed is in `DataSet.facts`.

    cache: a folder for generated scenes, and for images taken out of Parquet files. validation: samples to set aside of
    those to train on, at most a quarter of them. items: give items of prepared data, and not images with captions.
    files_gone: the image files need not be there, as what is stored of them may be all that is needed.

    Raises:
        DataError: the data are missing, lack a column, or are not enough.
        SampleError: a row cannot be used, and `on_bad_sample` is "error".
    """
    if isinstance(data, MixtureData):
        return _mixture(data, cache, on_bad_sample, validation, items=items)
    if isinstance(data, StreamData):
        return _stream(data, cache, on_bad_sample, validation, items=items)
    if isinstance(data, WorldData):
        data = _of_world(data, cache)
    if data.path is None:
        raise DataError("The recipe does not say where its data are. Try: --data FOLDER, or set data.path.")
    if isinstance(data, PreparedData):
        return _prepared(data, Path(data.path).expanduser(), validation, items=items, files_gone=files_gone)
    if items:
        raise _no_items()
    read = read_images(
        Path(data.path).expanduser(), data.columns, cache=cache, on_bad_sample=on_bad_sample, files_gone=files_gone
    )
    found = split_records(read.records, data, validation=validation)
    captions = sum(len(record.captions) for record in read.records)
    size = f"{len(read.records):,} images with {captions:,} captions"
    return replace(found, facts=(*read.facts, size, *found.facts), skipped=read.skipped)


def _of_world(data: WorldData, cache: Path) -> ImagesData:
    """Generate the scenes, if they are not there yet; return how to read them."""
    return ImagesData(
        path=str(prepare_world(data, cache)),
        columns=Columns(image="image", caption="caption", id="id"),
        train=Split(where={"split": "train"}),
        hold_out=(),
        splits={"test": Split(where={"split": "test"})},
        seed=data.seed,
    )


def _prepared(data: PreparedData, folder: Path, validation: int, *, items: bool, files_gone: bool = False) -> DataSet:
    """Return the samples of prepared data: its items, or the images with captions that they are."""
    prepared = Prepared(folder, files_gone=files_gone)
    names = data.splits or tuple(name for name in prepared.splits if name not in data.trained)

    def samples(split: str) -> tuple[Sample, ...]:
        return tuple(item if items else captioned(item) for item in prepared.items(split))

    train = tuple(sample for split in data.trained for sample in samples(split))
    kept = _set_aside(train, data.seed, min(validation, len(train) // 4))
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


def _set_aside(train: Sequence[Sample], seed: int, count: int) -> set[int]:
    """Return at most so many samples to validate on, drawn by hash; those of one image stay together."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, sample in enumerate(train):
        images = (sample.image,) if isinstance(sample, Record) else sample.images
        groups.setdefault(tuple(image.name for image in images) or (sample.id,), []).append(place)
    kept: set[int] = set()
    for group in sorted(groups.values(), key=lambda group: stable_hash("validation", seed, train[group[0]].id)):
        if len(kept) + len(group) <= count:
            kept.update(group)
    return kept


def _no_items() -> DataError:
    return DataError(
        "These tasks learn from items with labels, and the data are images with captions. Prepare a corpus that "
        "has labels (renaissance data layouts lists them), and set data.kind to 'prepared'."
    )


# --- streams and mixtures ---------------------------------------------------------------------------------------------


def _stream(data: StreamData, cache: Path, on_bad_sample: OnBadSample, validation: int, *, items: bool) -> DataSet:
    """Return a stream to train on, and the splits that are named beside it."""
    if items:
        raise _no_items()
    if validation and "validation" not in data.splits:
        raise DataError(
            "Evaluation in training needs samples that are not trained on, and none can be set aside of a stream. "
            "Name some as data.splits.validation, or leave evaluation.every out."
        )
    opened = open_stream(data, cache=cache, on_bad_sample=on_bad_sample)
    splits, facts, skipped = dict(opened.splits), list(opened.facts), list(opened.skipped)
    for name, held in data.splits.items():
        if held.data is not None:
            loaded = load_data(held.data, cache=cache, on_bad_sample=on_bad_sample, validation=0)
            splits[name] = _split_of(loaded, held.split or name, name)[: held.samples]
            skipped += loaded.skipped
        facts.append(f"split '{name}': {len(splits[name]):,} samples")
    return DataSet(
        train=opened.train,
        validation=splits["validation"][:validation] if validation else (),
        splits={name: splits[name] for name in data.splits},
        facts=tuple(facts),
        skipped=tuple(skipped),
    )


def _split_of(loaded: DataSet, wanted: str, name: str) -> tuple[Any, ...]:
    if wanted not in loaded.splits:
        known = ", ".join(loaded.splits) or "none"
        raise DataError(f"The data of the split '{name}' have no split '{wanted}'; set its 'split' to one of: {known}.")
    return loaded.splits[wanted]


def _mixture(data: MixtureData, cache: Path, on_bad_sample: OnBadSample, validation: int, *, items: bool) -> DataSet:
    """Return a mixture to train on, and the splits of its parts, each named after its part."""
    total = sum(part.weight for part in data.parts)
    loaded = []
    for part in data.parts:
        able = not isinstance(part.data, StreamData) or "validation" in part.data.splits
        aside = math.ceil(validation * part.weight / total) if able else 0
        loaded.append(load_data(part.data, cache=cache, on_bad_sample=on_bad_sample, validation=aside, items=items))
    _check_names([found.train for found in loaded], data.names)
    named = list(zip(data.names, loaded, strict=True))
    parts = tuple(found.train for found in loaded)
    return DataSet(
        train=Mixture(
            names=data.names,
            samples=tuple(part if isinstance(part, Stream) else tuple(part) for part in parts),
            weights=tuple(part.weight for part in data.parts),
            digests=tuple(samples_digest(part) for part in parts),
        ),
        validation=tuple(sample for found in loaded for sample in found.validation),
        splits={f"{name}.{split}": held for name, found in named for split, held in found.splits.items()},
        facts=tuple(f"{name}: {fact}" for name, found in named for fact in found.facts),
        skipped=tuple(f"{name}: {line}" for name, found in named for line in found.skipped),
    )


def _check_names(parts: Sequence[Iterable[Any] | Feed], names: Sequence[str]) -> None:
    """Refuse two parts that call different images the same: in a batch, one would stand for the other.

    Raises:
        DataError: naming the parts.
    """
    seen: dict[str, tuple[str, object]] = {}
    for part, name in zip(parts, names, strict=True):
        if isinstance(part, Stream):
            continue  # its images are named by the whole address of their shard
        for sample in part:
            for image in (sample.image,) if isinstance(sample, Record) else sample.images:
                first, other = seen.setdefault(image.name, (name, image))
                if other != image:
                    raise DataError(
                        f"The parts '{first}' and '{name}' have different images that are called '{image.name}'. "
                        "Rename the folder of one of them."
                    )


def samples_digest(samples: Iterable[Any] | Feed) -> str:
    """Return a digest of what decides which samples come when: of a feed its own, else of the samples in order."""
    if isinstance(samples, Feed):
        return samples.identity
    digest = sha256()
    for sample in samples:
        texts = sample.captions if isinstance(sample, Record) else [sample.texts, sample.label, sample.answers]
        digest.update(json.dumps([sample.id, texts]).encode())
    return digest.hexdigest()


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
