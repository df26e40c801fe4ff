"""Images of an evaluation split that the model was trained on: refused, unless a waiver names the split.

Images are compared by id: within one data set, and between corpora whose ids mean the same (COCO, Flickr30k, Visual
Genome). That costs no reading of images; copies under other names are found by `renaissance data doctor`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.data.doctor.overlap import corpus_key, level, of_world
from renaissance.data.doctor.report import OverlapLevel
from renaissance.data.load import load_data
from renaissance.data.mixtures import Mixture
from renaissance.data.prepared import ParquetImage, Prepared, manifest_of, world_of
from renaissance.data.records import DataSet, ImageSource, Sample, images_of
from renaissance.data.streams import Stream
from renaissance.errors import DataError, SpecError
from renaissance.recipe import Recipe
from renaissance.recipe.data import Data, MixtureData, PreparedData
from renaissance.spec import shown

EXAMPLES = 3
CHECKED = "image ids"


@dataclass(frozen=True, slots=True)
class Shared:
    """Images of a split ("test", or "winoground/test" of other data) that were trained on too.

    images: how many of the `total` of the split. reason: why the field's own set-ups have it, or that it is a leak.
    """

    split: str
    images: int
    total: int
    level: OverlapLevel
    reason: str
    waived: bool
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trained:
    """The images that a model was trained on: what tells them -> the layouts and splits that they are of.

    streamed: some of them come from a stream, and are not known before they are read.
    """

    keys: Mapping[str, Sequence[tuple[str, str]]]
    streamed: bool = False

    def shared(self, samples: Iterable[Sample], of: tuple[str, str], *, name: str, waived: bool) -> Shared | None:
        """Return what samples of a (layout, split) share with the training, None if nothing; name: of the split."""
        images: dict[str, bool] = {}
        levels: dict[OverlapLevel, str] = {}
        for sample in samples:
            for image, keys in image_keys(sample, of[0]):
                met = [trained for key in keys for trained in self.keys.get(key, ())]
                images[image.name] = images.get(image.name, False) or bool(met)
                for trained in met:
                    levels.setdefault(*level(trained, of))
        found = [image for image, met in images.items() if met]
        if not found:
            return None
        worst: OverlapLevel = "leak" if "leak" in levels else "standard overlap"
        return Shared(name, len(found), len(images), worst, levels[worst], waived, tuple(sorted(found)[:EXAMPLES]))


def image_keys(sample: Sample, layout: str) -> Iterator[tuple[ImageSource, list[str]]]:
    """Yield each image of a sample with what tells it: where it is, and its ids in the corpora that have it."""
    images = images_of(sample)
    for image in images:
        if not isinstance(image, ParquetImage):
            yield image, [image.name]
            continue
        folder = Path(image.file).parent
        image_id = image.name.removeprefix(f"{folder.name}/")
        keys = [corpus_key(layout, image_id)]
        if len(images) == 1 and "coco_id" in sample.fields:
            keys.append(f"coco:{sample.fields['coco_id']}")
        world = world_of(folder)
        yield image, [f"{folder.resolve()}/{image_id}", *(of_world(key, world) for key in keys if key is not None)]


def trained_images(data: Data, samples: Any) -> Trained:
    """Return the images to train on: `samples` are what `load_data` gave of a recipe's data (`DataSet.train`)."""
    parts: list[tuple[Data, Any]] = [(data, samples)]
    if isinstance(data, MixtureData) and isinstance(samples, Mixture):
        parts = list(zip((part.data for part in data.parts), samples.samples, strict=True))
    keys: dict[str, tuple[tuple[str, str], ...]] = {}
    for part, own in parts:
        if isinstance(own, Stream):
            continue
        layout = layout_of(part)
        for split, samples_of_split in _by_split(part, own):
            of = layout, split
            for sample in samples_of_split:
                for key in (key for _, known in image_keys(sample, layout) for key in known):
                    met = keys.get(key, ())
                    if of not in met:
                        keys[key] = (*met, of)
    return Trained(keys, streamed=any(isinstance(own, Stream) for _, own in parts))


def _by_split(data: Data, samples: Iterable[Sample]) -> Iterator[tuple[str, Iterable[Sample]]]:
    """Yield the samples to train on by their split; of several splits also those that are set aside to validate on."""
    if not isinstance(data, PreparedData) or len(data.trained) == 1:
        yield data.trained[0] if isinstance(data, PreparedData) else "train", samples
        return
    assert data.path is not None, "its samples are here"
    prepared = Prepared(Path(data.path).expanduser(), files_gone=True)
    for split in data.trained:
        yield split, prepared.items(split)


def trained_by(recipe: Recipe, cache: Path, *, items: bool) -> Trained:
    """Return the images that a run of a recipe trained on.

    Raises:
        DataError: its data are not where they were.
    """
    loaded = load_data(recipe.data, cache=cache, on_bad_sample="skip", validation=0, items=items, files_gone=True)
    return trained_images(recipe.data, loaded.train)


def layout_of(data: Data) -> str:
    """Return the layout of prepared data, and the kind of others."""
    if isinstance(data, PreparedData) and data.path is not None:
        return str(manifest_of(Path(data.path).expanduser())["layout"])
    return data.kind


def check_run(recipe: Recipe, data: DataSet) -> list[Shared]:
    """Return what the splits of a run share with its training, all of it waived or standard in the field.

    Raises:
        DataError: a split shares images with the training, and no waiver names it.
        SpecError: a waiver names a split that shares none.
    """
    trained = trained_images(recipe.data, data.train)
    waive = {name for name in recipe.evaluation.waive if name.partition("/")[0] not in recipe.evaluation.data}
    found = []
    for name, samples in data.splits.items():
        part, split = _part_of(recipe.data, name)
        shared = trained.shared(samples, (layout_of(part), split), name=name, waived=name in waive)
        found += [shared] if shared is not None else []
    refuse_leaks(found)
    check_waivers(waive, found)
    return found


def refuse_leaks(found: Sequence[Shared], how: str = "set evaluation.waive to [{}]") -> None:
    """Refuse leaks that are not waived; how: the way to waive one, with {} for its name.

    Raises:
        DataError: naming the first.
    """
    leak = next((shared for shared in found if shared.level == "leak" and not shared.waived), None)
    if leak is not None:
        raise DataError(
            f"{leak.images:,} of the {leak.total:,} images of '{leak.split}' were trained on, such as "
            f"'{leak.examples[0]}', so its scores would not be those of new images. Measure on other splits, or "
            f"{how.format(leak.split)} if it is meant."
        )


def check_waivers(waive: Collection[str], found: Sequence[Shared]) -> None:
    """Refuse waivers of what is not there.

    Raises:
        SpecError: naming the first.
    """
    known = [shared.split for shared in found]
    odd = next((name for name in sorted(waive) if name not in known), None)
    if odd is not None:
        there = ", ".join(known) or "none does"
        raise SpecError(f"'{shown(odd)}' shares no image with the training, so there is nothing to waive; of: {there}.")


def _part_of(data: Data, name: str) -> tuple[Data, str]:
    """Return the data that a split is of, and its name there."""
    if not isinstance(data, MixtureData):
        return data, name
    part = next(part for part in sorted(data.names, key=len, reverse=True) if name.startswith(f"{part}."))
    return data.parts[data.names.index(part)].data, name.removeprefix(f"{part}.")
