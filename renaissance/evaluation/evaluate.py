"""Measure a model on the splits of a data set: `renaissance.evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from renaissance.api import Features, MeasuredTask, Score
from renaissance.assemble import Assembly
from renaissance.data.cache import cache_folder
from renaissance.data.captions import caption_key
from renaissance.data.collate import caption_keys, image_batches, text_batches
from renaissance.data.decode import decode
from renaissance.data.load import load_data
from renaissance.data.records import Record
from renaissance.errors import CapabilityError, DataError, SampleError
from renaissance.evaluation.scorer import ModelScorer
from renaissance.features.frozen import Stores
from renaissance.progress import Progress, Silent
from renaissance.recipe import Data, ImagesData, OnBadSample
from renaissance.spec import shown
from renaissance.toolkit.devices import moved
from renaissance.toolkit.modes import evaluating

NOTHING_STORED = Stores()


@dataclass(frozen=True, slots=True)
class SplitScores:
    """What was measured on one split: how much it holds, the scores of each task, and a line a sample left out."""

    split: str
    images: int
    captions: int
    distinct_texts: int
    scores: Mapping[str, Sequence[Score]]
    skipped: tuple[str, ...] = ()

    def sizes(self) -> dict[str, int]:
        """Return how many images, captions and distinct texts were measured."""
        return {"images": self.images, "captions": self.captions, "distinct_texts": self.distinct_texts}

    def rows(self) -> list[dict[str, Any]]:
        """Return one JSON-able row a score."""
        return [
            {"split": self.split, "task": task, **asdict(score)}
            for task, scores in self.scores.items()
            for score in scores
        ]


def evaluate(
    model: Any,
    data: Data | str | Path,
    *,
    tasks: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    batch_size: int = 64,
    on_bad_sample: OnBadSample = "error",
    progress: Progress | None = None,
) -> list[SplitScores]:
    """Measure a model on the held-out splits of a data set.

    data: a data section of a recipe, or a folder of images and captions, which is then measured whole.

    Raises:
        CapabilityError: the model has no such task, or none that can be measured.
        DataError: the data has no such split, or cannot be read.
    """
    assembly: Assembly = getattr(model, "assembly", model)
    folder = isinstance(data, str | Path)
    section: Data = ImagesData(path=str(data), hold_out=()) if folder else cast(Data, data)
    loaded = load_data(section, cache=cache_folder(), on_bad_sample=on_bad_sample, validation=0)
    held: Mapping[str, Sequence[Record]] = {"all": loaded.train} if folder else loaded.splits
    progress = progress or Silent()
    names = tuple(splits or held)
    missing = [name for name in names if name not in held]
    if missing:
        raise DataError(f"The data have no split '{shown(missing[0])}'; choose from: {', '.join(held) or 'none'}.")
    found = []
    for name in names:
        records, lines = usable(held[name], on_bad_sample)
        if not records:
            raise DataError(f"No sample of '{name}' can be used; leave it out, or mend its images.")
        measured = evaluate_split(assembly, name, records, tasks=tasks, batch_size=batch_size, progress=progress)
        found.append(replace(measured, skipped=(*loaded.skipped, *lines)))
    return found


def evaluate_split(
    assembly: Assembly,
    split: str,
    records: Sequence[Record],
    *,
    tasks: Sequence[str] | None = None,
    stores: Stores = NOTHING_STORED,
    batch_size: int = 64,
    progress: Progress,
) -> SplitScores:
    """Measure a model on one split; the model is left in the mode, training or not, in which it came."""
    measured = measurable(assembly, tasks)
    texts = list({caption_key(caption): caption for record in records for caption in record.captions}.values())
    scorer = ModelScorer(
        assembly,
        partial(_encoded_images, assembly, records, stores, batch_size, progress, split),
        partial(_encoded_texts, assembly, texts, stores, batch_size, progress, split),
        caption_keys(records),
        torch.tensor([caption_key(text) for text in texts]),
        progress.track,
    )
    with evaluating(assembly):
        scores = {name: tuple(task.score(scorer)) for name, task in measured.items()}
    return SplitScores(split, len(records), sum(len(record.captions) for record in records), len(texts), scores)


def measurable(assembly: Assembly, names: Sequence[str] | None) -> dict[str, MeasuredTask]:
    """Return the tasks of a model that can be measured, or those named.

    Raises:
        CapabilityError: a task that is named is not the model's, or none can be measured.
    """
    able = {name: task for name, task in assembly.plan.tasks.items() if task.entry.evaluates}
    for name in names or ():
        if name not in able:
            known = ", ".join(able) or "none"
            raise CapabilityError(
                f"This model cannot be measured by '{shown(name)}'; it can by: {known}. Add the task to its recipe."
            )
    if not able:
        raise CapabilityError(
            "None of this model's tasks can be measured; add 'itm', or 'itc' with 'retrieval', to its recipe."
        )
    return {name: cast(MeasuredTask, assembly.tasks[name]) for name in (names or able)}


def usable(records: Sequence[Record], on_bad_sample: OnBadSample) -> tuple[list[Record], tuple[str, ...]]:
    """Return the records whose image can be decoded, and a line for each other; with "error" all are taken as good."""
    if on_bad_sample == "error":
        return list(records), ()
    good: list[Record] = []
    skipped: list[str] = []
    for record in records:
        try:
            decode(record.image.read(), name=record.image.name)
        except SampleError as error:
            skipped.append(f"{record.row}: {error}")
        else:
            good.append(record)
    return good, tuple(skipped)


def _encoded_images(
    assembly: Assembly, records: Sequence[Record], stores: Stores, size: int, progress: Progress, split: str
) -> Iterator[Features]:
    stored, encoder = stores.vision, assembly.encoder
    if stored is not None:
        yield stored(records)
        return
    processor = cast(Any, encoder.vision).processor
    batches = image_batches(records, processor, size)
    yield from _encoded(batches, encoder.encode_vision, len(records), size, progress, f"Images of '{split}'", assembly)


def _encoded_texts(
    assembly: Assembly, texts: Sequence[str], stores: Stores, size: int, progress: Progress, split: str
) -> Iterator[Features]:
    stored, encoder = stores.text, assembly.encoder
    if stored is not None and all(text in stored.rows for text in texts):
        yield stored(texts)
        return
    processor = cast(Any, encoder.text).processor
    batches = text_batches(texts, processor, size)
    yield from _encoded(batches, encoder.encode_text, len(texts), size, progress, f"Texts of '{split}'", assembly)


def _encoded(
    batches: Iterable[Any],
    encode: Callable[[Any], Features],
    count: int,
    size: int,
    progress: Progress,
    what: str,
    assembly: Assembly,
) -> Iterator[Features]:
    device = next(assembly.parameters()).device
    for batch in progress.track(batches, -(-count // size), what):
        yield encode(moved(batch, device))
