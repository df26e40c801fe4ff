"""Measure a model on the splits of a data set: `renaissance.evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from renaissance.api import Features, Item, Score
from renaissance.assemble import Assembly
from renaissance.data.cache import cache_folder
from renaissance.data.captions import caption_key
from renaissance.data.collate import caption_keys, image_batches, text_batches
from renaissance.data.decode import decode
from renaissance.data.load import load_data
from renaissance.data.prepared import Prepared, is_prepared
from renaissance.data.records import Record
from renaissance.errors import CapabilityError, DataError, SampleError
from renaissance.evaluation.choosing import Measure, chosen_measures
from renaissance.evaluation.items import ModelItemScorer
from renaissance.evaluation.scorer import ModelScorer
from renaissance.features.frozen import Stores
from renaissance.progress import Progress, Silent
from renaissance.recipe.data import Data, ImagesData, PreparedData
from renaissance.recipe.values import OnBadSample
from renaissance.registry import Registry, default_registry
from renaissance.spec import shown
from renaissance.toolkit.devices import moved
from renaissance.toolkit.modes import evaluating

NOTHING_STORED = Stores()


@dataclass(frozen=True, slots=True)
class SplitScores:
    """What was measured on one split: how much it holds, the scores of each task, and a line a sample left out.

    items: how many items, where tasks are on these. data: which data the split is of, where several were measured.
    submissions: by task, the rows of its prediction file.
    """

    split: str
    images: int
    captions: int
    distinct_texts: int
    scores: Mapping[str, Sequence[Score]]
    skipped: tuple[str, ...] = ()
    items: int | None = None
    data: str = ""
    submissions: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def sizes(self) -> dict[str, int]:
        """Return how many images, captions and distinct texts were measured, and how many items if they were items."""
        sizes = {"images": self.images, "captions": self.captions, "distinct_texts": self.distinct_texts}
        return sizes if self.items is None else {"items": self.items, **sizes}

    def rows(self) -> list[dict[str, Any]]:
        """Return one JSON-able row a score."""
        named = {"data": self.data} if self.data else {}
        return [
            {**named, "split": self.split, "task": task, **asdict(score)}
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
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> list[SplitScores]:
    """Measure a model on the held-out splits of a data set.

    data: a data section of a recipe, a folder that `renaissance data prepare` wrote, or a folder of images and
    captions, which is then measured whole. tasks: by default those of the model that are for such data; a task that
    has nothing to train ('winoground', 'retrieval') measures any model that can do what it needs. splits: by default
    all but those to train on. on_bad_sample: "skip" leaves out images with captions that cannot be decoded, told of
    in `SplitScores.skipped`; of items none is ever left out.

    Raises:
        CapabilityError: the model has no such task, or none that can be measured.
        SampleError: an image cannot be used.
        DataError: the data has no such split, or cannot be read.
    """
    assembly: Assembly = getattr(model, "assembly", model)
    section, whole = _section(data, splits)
    layout = Prepared(Path(section.path or "")).manifest["layout"] if isinstance(section, PreparedData) else None
    measures = chosen_measures(assembly, tasks, layout=layout, registry=registry or default_registry())
    items = any(measure.entry.data == "items" for measure in measures.values())
    loaded = load_data(section, cache=cache_folder(), on_bad_sample=on_bad_sample, validation=0, items=items)
    held: Mapping[str, Sequence[Any]] = {"all": loaded.held} if whole else loaded.splits
    progress = progress or Silent()
    names = tuple(splits or held)
    missing = [name for name in names if name not in held]
    if missing:
        raise DataError(f"The data have no split '{shown(missing[0])}'; choose from: {', '.join(held) or 'none'}.")
    if items:
        if on_bad_sample == "skip":
            progress.say("No item is left out: one whose image cannot be used ends the evaluation.")
        return [evaluate_items(assembly, name, held[name], measures, progress) for name in names]
    found = []
    for name in names:
        records, lines = usable(held[name], on_bad_sample)
        if not records:
            raise DataError(f"No sample of '{name}' can be used; leave it out, or mend its images.")
        measured = evaluate_split(assembly, name, records, measures, batch_size=batch_size, progress=progress)
        found.append(replace(measured, skipped=(*loaded.skipped, *lines)))
    return found


def evaluate_all(
    model: Any,
    folder: str | Path,
    *,
    splits: Sequence[str] | None = None,
    batch_size: int = 64,
    on_bad_sample: OnBadSample = "error",
    registry: Registry | None = None,
    progress: Progress | None = None,
    measured: Callable[[Sequence[SplitScores]], None] | None = None,
) -> list[SplitScores]:
    """Measure a model by every task that can, on all data that `renaissance data prepare` wrote below a folder.

    Data that no task of the model is for are passed over, and so are those that are only to train on. splits: measure
    these, of the data that have them; by default all but those to train on. measured: told the scores of each data as
    soon as they are known.

    Raises:
        DataError: there are no prepared data below the folder.
        CapabilityError: no task of this model can be measured on any of them.
    """
    root = Path(folder).expanduser()
    found: list[SplitScores] = []
    passed: list[CapabilityError] = []
    prepared = [place for place in (root, *sorted(root.iterdir())) if is_prepared(place)] if root.is_dir() else []
    if not prepared:
        raise DataError(f"'{root}' has no prepared data below it. Try: renaissance data prepare --help")
    progress = progress or Silent()
    for place in prepared:
        chosen = [name for name in splits or _held_out(Prepared(place)) if name in Prepared(place).splits]
        if not chosen:
            progress.say(
                f"{place.name}: passed over, for it has no split to measure. Name one of its own to measure it."
            )
            continue
        options: dict[str, Any] = {"batch_size": batch_size, "on_bad_sample": on_bad_sample, "registry": registry}
        try:
            scores = evaluate(model, place, splits=chosen, progress=progress, **options)
        except CapabilityError as error:
            progress.say(f"{place.name}: passed over, for no task of this model is for it.")
            passed.append(error)
            continue
        named = [replace(one, data=place.name) for one in scores]
        found += named
        progress.say(f"{place.name}: measured on {', '.join(chosen)}.")
        if measured is not None:
            measured(named)
    if not found and passed:
        raise passed[0]
    return found


def _section(data: Data | str | Path, splits: Sequence[str] | None) -> tuple[Data, bool]:
    """Return the data section that a folder stands for, and whether all of it is measured.

    Raises:
        DataError: the folder holds nothing but what is to train on, and no split is named.
    """
    if not isinstance(data, str | Path):
        return data, False
    if not is_prepared(Path(data).expanduser()):
        return ImagesData(path=str(data), hold_out=()), True
    prepared = Prepared(Path(data).expanduser())
    known = [name for name in splits or () if name in prepared.splits] if splits else _held_out(prepared)
    if not known and not splits:
        raise DataError(
            f"'{data}' holds only data to train on. Name the split to measure: {', '.join(prepared.splits)}."
        )
    known = known if not splits or len(known) == len(splits) else list(prepared.splits)
    return PreparedData(path=str(data), train=known[0], splits=tuple(known)), False


def _held_out(prepared: Prepared) -> list[str]:
    """Return the splits that are not to train on: 'train...', and 'restval', which Karpathy's splits train on too."""
    return [name for name in prepared.splits if not name.startswith("train") and name != "restval"]


def evaluate_items(
    assembly: Assembly, split: str, items: Sequence[Item], measures: Mapping[str, Measure], progress: Progress
) -> SplitScores:
    """Measure a model by tasks on items; it is left in the mode, training or not, in which it came.

    Raises:
        SampleError: an image cannot be used; an evaluation leaves none out.
    """
    scorer = ModelItemScorer(assembly, items, {name: m.task for name, m in measures.items()}, progress.track, split)
    with evaluating(assembly):
        scores = {name: tuple(measure.task.score(scorer)) for name, measure in measures.items()}
        rows = {name: tuple(measure.task.submission(scorer)) for name, measure in measures.items()}
    texts = [caption_key(text) for item in items for text in item.texts]
    images = {image.name for item in items for image in item.images}
    return SplitScores(split, len(images), len(texts), len(set(texts)), scores, items=len(items), submissions=rows)


def evaluate_split(
    assembly: Assembly,
    split: str,
    records: Sequence[Record],
    measures: Mapping[str, Measure],
    *,
    stores: Stores = NOTHING_STORED,
    batch_size: int = 64,
    progress: Progress,
) -> SplitScores:
    """Measure a model on one split; the model is left in the mode, training or not, in which it came."""
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
        scores = {name: tuple(measure.task.score(scorer)) for name, measure in measures.items()}
    return SplitScores(split, len(records), sum(len(record.captions) for record in records), len(texts), scores)


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
