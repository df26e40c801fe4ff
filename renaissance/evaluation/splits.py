"""The scores of a model on one split: of images with captions, or of items."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from typing import Any, TypeVar, cast

import torch

from renaissance.api import MODALITIES, Features, Item, Score, Scorer
from renaissance.assemble import Assembly
from renaissance.data.captions import caption_key
from renaissance.data.collate import caption_keys, image_batches, text_batches
from renaissance.data.decode import decode
from renaissance.data.pixels import picture_for
from renaissance.data.records import Record, Sample, images_of
from renaissance.errors import SampleError
from renaissance.evaluation.blind import BlindScorer, Remembering, blind_items, exchanged, with_figures
from renaissance.evaluation.choosing import Measure
from renaissance.evaluation.items import ModelItemScorer
from renaissance.evaluation.leaks import Shared
from renaissance.evaluation.scorer import ModelScorer
from renaissance.features.frozen import Stores
from renaissance.progress import Progress
from renaissance.recipe.values import OnBadSample
from renaissance.toolkit.devices import moved
from renaissance.toolkit.modes import evaluating

Value = TypeVar("Value")
NOTHING_STORED = Stores()


@dataclass(frozen=True, slots=True)
class SplitScores:
    """What was measured on one split: how much it holds, the scores of each task, and a line a sample left out.

    images, distinct_texts: each counted once. items: how many items, where tasks are on these. data: which data the
    split is of, where several were measured. submissions: by task, the rows of its prediction file. shared: which of
    the images were trained on too, where that is waived. samples: the SHA-256 of what was measured, in its order.
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
    shared: Shared | None = None
    samples: str = ""

    @property
    def name(self) -> str:
        """The split, after the data where several were measured: 'winoground/test'."""
        return "/".join(filter(None, (self.data, self.split)))

    def sizes(self) -> dict[str, int]:
        """Return how many images, captions and distinct texts were measured, and how many items if they were items."""
        sizes = {"images": self.images, "captions": self.captions, "distinct_texts": self.distinct_texts}
        return sizes if self.items is None else {"items": self.items, **sizes}

    def rows(self) -> list[dict[str, Any]]:
        """Return one JSON-able row a score."""
        named = {"data": self.data} if self.data else {}
        return [
            {**named, "split": self.split, "task": task, **score.row()}
            for task, scores in self.scores.items()
            for score in scores
        ]


def evaluate_items(
    assembly: Assembly,
    split: str,
    items: Sequence[Item],
    measures: Mapping[str, Measure],
    progress: Progress,
    *,
    stores: Stores = NOTHING_STORED,
    blind: bool = False,
) -> SplitScores:
    """Measure a model by tasks on items; it is left in the mode, training or not, in which it came.

    blind: measure it also on the images, and on the texts, of other items.

    Raises:
        SampleError: an image cannot be used; an evaluation leaves none out.
    """
    tasks = {name: measure.task for name, measure in measures.items()}
    scorer = ModelItemScorer(assembly, items, tasks, progress.track, split, stores)
    with evaluating(assembly):
        scores = {name: tuple(measure.task.score(scorer)) for name, measure in measures.items()}
        rows = {name: tuple(measure.task.submission(scorer)) for name, measure in measures.items()}
        for modality in MODALITIES if blind else ():
            others = blind_items(items, modality)
            if others is not None:
                other = scorer.on(others)
                figures = {name: measure.task.score(other) for name, measure in measures.items()}
                scores = with_figures(scores, modality, figures)
    texts = [caption_key(text) for item in items for text in item.texts]
    images = {image.name for item in items for image in item.images}
    return SplitScores(
        split, len(images), len(texts), len(set(texts)), scores, items=len(items), submissions=rows,
        samples=samples_digest((item.id, *item.texts) for item in items),
    )  # fmt: skip


def evaluate_split(
    assembly: Assembly,
    split: str,
    records: Sequence[Record],
    measures: Mapping[str, Measure],
    *,
    stores: Stores = NOTHING_STORED,
    batch_size: int = 64,
    progress: Progress,
    blind: bool = False,
    encoded: Iterable[Features] | None = None,
) -> SplitScores:
    """Measure a model on one split; the model is left in the mode, training or not, in which it came.

    Records of one image are one image with all their captions. blind: measure it also with the captions of other
    images. encoded: the features of the images of `by_image(records)`, in their order, where they are known.
    """
    scorer: Scorer = split_scorer(
        assembly, split, records, stores=stores, batch_size=batch_size, progress=progress, encoded=encoded
    )
    images, texts = scorer.positives.shape
    with evaluating(assembly):
        scores = caption_scores(Remembering(scorer) if blind else scorer, measures, blind=blind)
    captions = sum(len(record.captions) for record in records)
    return SplitScores(split, images, captions, texts, scores, samples=records_digest(records))


def split_scorer(
    assembly: Assembly,
    split: str,
    records: Sequence[Record],
    *,
    stores: Stores = NOTHING_STORED,
    batch_size: int = 64,
    progress: Progress,
    encoded: Iterable[Features] | None = None,
) -> ModelScorer:
    """Return what scores the distinct images of records against their distinct texts, all as in `evaluate_split`."""
    whole = by_image(records)
    texts = list({caption_key(caption): caption for record in whole for caption in record.captions}.values())
    images = partial(_encoded_images, assembly, whole, stores, batch_size, progress, split)
    return ModelScorer(
        assembly,
        images if encoded is None else lambda: encoded,
        partial(_encoded_texts, assembly, texts, stores, batch_size, progress, split),
        caption_keys(whole),
        torch.tensor([caption_key(text) for text in texts]),
        progress.track,
    )


def caption_scores(scorer: Scorer, measures: Mapping[str, Measure], *, blind: bool) -> dict[str, tuple[Score, ...]]:
    """Return the scores of tasks on images with captions; blind: with the figures of exchanged captions."""
    scores = {name: tuple(measure.task.score(scorer)) for name, measure in measures.items()}
    others = exchanged(scorer.positives) if blind else None
    if others is None:
        return scores
    figures = {name: measure.task.score(BlindScorer(scorer, others)) for name, measure in measures.items()}
    for modality in MODALITIES:
        scores = with_figures(scores, modality, figures)
    return scores


def with_twin(trained: Sequence[SplitScores], twin: Sequence[SplitScores]) -> list[SplitScores]:
    """Return the scores of a model on some splits with those of its blind twin on the same splits."""
    known = {scores.split: scores.scores for scores in twin}
    return [replace(one, scores=with_figures(one.scores, "twin", known.get(one.split, {}))) for one in trained]


def by_image(records: Sequence[Record]) -> list[Record]:
    """Return one record an image, with the captions of all its records, such as the regions of Visual Genome."""
    found: dict[str, Record] = {}
    for record in records:
        own = found.get(record.image.name)
        captions = record.captions if own is None else (*own.captions, *record.captions)
        found[record.image.name] = replace(own or record, captions=captions)
    return list(found.values())


def records_digest(records: Sequence[Record]) -> str:
    """Return the SHA-256 of the ids of the distinct images of records, with all their captions, in their order."""
    return samples_digest((record.id, *record.captions) for record in by_image(records))


def samples_digest(samples: Iterable[Sequence[str]]) -> str:
    """Return the SHA-256 of what names samples, in their order."""
    return sha256("\n".join(json.dumps(list(names)) for names in samples).encode()).hexdigest()


# --- samples that cannot be used --------------------------------------------------------------------------------------


def usable(samples: Sequence[Sample], on_bad_sample: OnBadSample) -> tuple[list[Sample], tuple[str, ...]]:
    """Return the samples whose images can be decoded, and a line for each other; with "error" all are taken as good."""
    if on_bad_sample == "error":
        return list(samples), ()
    good: list[Sample] = []
    skipped: list[str] = []
    for sample in samples:
        try:
            for image in images_of(sample):
                decode(image.read(), name=image.name)
        except SampleError as error:
            skipped.append(f"{sample.row}: {error}")
        else:
            good.append(sample)
    return good, tuple(skipped)


def usable_encoded(
    assembly: Assembly, records: Sequence[Record], *, batch_size: int, progress: Progress, split: str
) -> tuple[list[Record], list[Features], tuple[str, ...]]:
    """Return the records whose image can be decoded, the features of their images, and a line for each other record.

    Each distinct image is read and decoded once; the features are those of `by_image(good)`, in that order.
    """
    processor = cast(Any, assembly.encoder.vision).processor
    faults: dict[str, str] = {}

    def batches() -> Iterator[Any]:
        pictures: list[Any] = []
        for record in by_image(records):
            try:
                pictures.append(picture_for(processor, record))
            except SampleError as error:
                faults[record.image.name] = str(error)
            if len(pictures) == batch_size:
                yield processor(pictures)
                pictures = []
        if pictures:
            yield processor(pictures)

    count = len({record.image.name for record in records})
    with evaluating(assembly), torch.inference_mode():
        what = f"Images of '{split}'"
        encode = assembly.encoder.encode_vision
        features = [
            moved(part, torch.device("cpu"))
            for part in _encoded(batches(), encode, count, batch_size, progress, what, assembly)
        ]
    good = [record for record in records if record.image.name not in faults]
    lines = (_line(record, faults[record.image.name]) for record in records if record.image.name in faults)
    return good, features, tuple(lines)


def _line(record: Record, fault: str) -> str:
    """Return what is wrong with the image of a record, after the record's own row."""
    return fault if fault.startswith(record.row) else f"{record.row}: {fault}"


# --- encoding ---------------------------------------------------------------------------------------------------------


def _encoded_images(
    assembly: Assembly, records: Sequence[Record], stores: Stores, size: int, progress: Progress, split: str
) -> Iterator[Features]:
    stored, encoder = stores.vision, assembly.encoder
    what = f"Images of '{split}'"
    if stored is not None:
        read = (stored(part) for part in _parts(records, size))
        encode = partial(cast(Any, encoder).encode_vision, None)
        yield from _encoded(read, encode, len(records), size, progress, what, assembly)
        return
    processor = cast(Any, encoder.vision).processor
    batches = image_batches(records, processor, size)
    yield from _encoded(batches, encoder.encode_vision, len(records), size, progress, what, assembly)


def _encoded_texts(
    assembly: Assembly, texts: Sequence[str], stores: Stores, size: int, progress: Progress, split: str
) -> Iterator[Features]:
    stored, encoder = stores.text, assembly.encoder
    processor = cast(Any, encoder.text).processor
    batches: Iterable[Any] = text_batches(texts, processor, size)
    encode: Callable[..., Features] = encoder.encode_text
    if stored is not None and stored.has([(text,) for text in texts]):
        batches = zip(batches, (stored(part) for part in _parts(texts, size)), strict=True)
        encode = lambda batch: cast(Any, encoder).encode_text(*batch)  # noqa: E731
    yield from _encoded(batches, encode, len(texts), size, progress, f"Texts of '{split}'", assembly)


def _parts(values: Sequence[Value], size: int) -> Iterator[Sequence[Value]]:
    return (values[start : start + size] for start in range(0, len(values), size))


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
