"""From records to batches: one caption of each image, distinct inputs, and the pairs between them.

Letters in shapes: V distinct images (where they are augmented, one of each record), T distinct texts, P pairs, C most
captions that one image has.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from renaissance.api import Batch, Box, Features, Prefix, TextInput, TextProcessor, VisionInput
from renaissance.data.augment import augment, drawn_seed
from renaissance.data.blind import Blindfold
from renaissance.data.captions import caption_key
from renaissance.data.hashing import stable_hash
from renaissance.data.pixels import picture_for
from renaissance.data.reads import counted
from renaissance.data.records import Record
from renaissance.data.sampling import sample_seed
from renaissance.errors import SampleError, SpecError
from renaissance.recipe.training import Augmentation
from renaissance.recipe.values import OnBadSample
from renaissance.toolkit.images import ImageProcessor, batched

Value = TypeVar("Value")
# What is stored of an image: its name, a region of it, and the seed of an augmented view.
ViewKey = tuple[str, Box | None, int | None]
StoredVision = Callable[[Sequence[ViewKey]], Features | Prefix]
StoredText = Callable[[Sequence[tuple[str, ...]]], Features | Prefix]


def chosen_caption(record: Record, seed: int, epoch: int) -> str:
    """Return the caption of an epoch; n epochs in a row use each of n captions once."""
    start = stable_hash("first caption", seed, record.id)
    return record.captions[(start + epoch) % len(record.captions)]


@dataclass(frozen=True, slots=True)
class Collator:
    """Makes batches: pure in (seed, epoch, records), so that loader processes change nothing.

    images: None only where `stored_vision` gives what frozen blocks made of them; the image files are not read then.
    blindfold: gives each record the image, or the captions, of another one.
    """

    images: ImageProcessor | None
    texts: TextProcessor
    seed: int
    augmentation: Augmentation | None = None
    on_bad_sample: OnBadSample = "error"
    stored_vision: StoredVision | None = None
    stored_text: StoredText | None = None
    blindfold: Blindfold | None = None

    def __post_init__(self) -> None:
        """Check that images come from one place.

        Raises:
            SpecError: there is neither a processor of images nor a store, or a store beside endless augmentation.
        """
        if self.images is None and self.stored_vision is None:
            raise SpecError("A collator needs the preprocessing of images, or their stored features.")
        check_views(self.augmentation, stored=self.stored_vision is not None)

    def __call__(self, records: Sequence[Record], epoch: int | Sequence[int]) -> Batch:
        """Return the batch of these records; each gives one pair. epoch: one of all, or that of each record.

        Raises:
            SampleError: an image cannot be used (on_bad_sample "error"), or none of them can.
        """
        epochs = of_each(epoch, records)
        if self.blindfold is not None:
            records = [self.blindfold(*one) for one in zip(records, epochs, strict=True)]
        with counted() as read:
            images, kept, skipped = self._read(records, epochs)
        records, epochs = [records[row] for row in kept], [epochs[row] for row in kept]
        drawn, image_rows = _distinct(records, self._places(records))
        captions = [chosen_caption(record, self.seed, turn) for record, turn in zip(records, epochs, strict=True)]
        texts, text_rows = _distinct(captions, [caption_key(caption) for caption in captions])
        return Batch(
            images=images,
            texts=self.texts(texts),
            pairs=torch.tensor(list(zip(image_rows, text_rows, strict=True))),
            slots=torch.zeros(len(records), dtype=torch.int64),
            items=torch.arange(len(records)),
            seeds=torch.tensor(
                [sample_seed(self.seed, turn, record.id) for record, turn in zip(records, epochs, strict=True)]
            ),
            caption_keys=caption_keys(drawn, records),
            text_keys=torch.tensor([caption_key(text) for text in texts]),
            image_keys=torch.tensor([image_key(record.image.name) for record in drawn]),
            view_keys=self._view_keys(records, epochs, drawn),
            ids=tuple(record.id for record in records),
            stored_vision=self._stored(drawn, records, epochs),
            stored_text=self.stored_text([(text,) for text in texts]) if self.stored_text is not None else None,
            skipped=skipped,
            bytes_read=read.count,
        )

    def _read(
        self, records: Sequence[Record], epochs: Sequence[int]
    ) -> tuple[VisionInput | None, list[int], tuple[str, ...]]:
        """Return pixels of the distinct images, the places of usable records, and a line for each that is not."""
        if self.stored_vision is not None or self.images is None:
            return None, list(range(len(records))), ()
        places = self._places(records)
        distinct, _ = _distinct(list(zip(places, records, epochs, strict=True)), places)
        pixels: dict[Hashable, Tensor] = {}
        skipped: list[str] = []
        for place, record, epoch in distinct:
            try:
                pixels[place] = self._pixels(record, self.images, epoch)
            except SampleError as error:
                if self.on_bad_sample == "error":
                    raise
                skipped.append(str(error))
        if not pixels:
            raise SampleError(f"No image of a batch of {len(records)} can be used; the first: {skipped[0]}")
        kept = [row for row, place in enumerate(places) if place in pixels]
        return batched(list(pixels.values())), kept, tuple(skipped)

    def _stored(
        self, drawn: Sequence[Record], records: Sequence[Record], epochs: Sequence[int]
    ) -> Features | Prefix | None:
        """Return what is stored of the distinct images, or where they are augmented, of the view of each record."""
        if self.stored_vision is None:
            return None
        if self.augmentation is None or not self._augments:
            return self.stored_vision([(record.image.name, None, None) for record in drawn])
        turns = zip(records, epochs, strict=True)
        seeds = [drawn_seed(self.augmentation, self.seed, epoch, record.id) for record, epoch in turns]
        return self.stored_vision([(record.image.name, None, seed) for record, seed in zip(drawn, seeds, strict=True)])

    def _places(self, records: Sequence[Record]) -> list[Hashable]:
        """Return what says for each record which pixels are its own: its image, or where it is augmented, its row."""
        # augmented by its own seed: the pixels of a sample are the same with any others in the batch
        return list(range(len(records))) if self._augments else [record.image.name for record in records]

    def _view_keys(self, records: Sequence[Record], epochs: Sequence[int], drawn: Sequence[Record]) -> Tensor:
        """Return the keys int64 [V] of what the images look like: that of the image, or where augmented of its view."""
        if not self._augments:
            return torch.tensor([image_key(record.image.name) for record in drawn])
        turns = zip(records, epochs, strict=True)  # each record has a row of its own
        return torch.tensor([view_key(record.image.name, record.id, epoch) for record, epoch in turns])

    @property
    def _augments(self) -> bool:
        return self.augmentation is not None and self.augmentation.any

    def _pixels(self, record: Record, processor: ImageProcessor, epoch: int) -> Tensor:
        """Return uint8 pixels [3, H, W], augmented by the seed of the sample in this epoch."""
        if self.augmentation is None or not self._augments:
            return processor([picture_for(processor, record)]).pixels[0]
        picture = picture_for(processor, record, share=self.augmentation.least_share)
        return augment(
            picture, processor, self.augmentation, drawn_seed(self.augmentation, self.seed, epoch, record.id)
        )


def check_views(augmentation: Augmentation | None, *, stored: bool) -> None:
    """Check that a store can hold every view of an image.

    Raises:
        SpecError: in each epoch there is another one.
    """
    if stored and augmentation is not None and augmentation.any and augmentation.views is None:
        raise SpecError(
            "A store holds so many views of each image as augmentation.views says, and it is not set: set it, or turn "
            "'augmentation' or 'store' off."
        )


def image_key(name: str) -> int:
    """Return a number that an image has wherever it is read, by its name."""
    return stable_hash("image", name)


def view_key(name: str, sample: str, epoch: int) -> int:
    """Return a number of how an image looks, augmented for a sample in an epoch."""
    return stable_hash("view", name, sample, epoch)


def of_each(epoch: int | Sequence[int], samples: Sequence[object]) -> list[int]:
    """Return the epoch of each sample."""
    return [epoch] * len(samples) if isinstance(epoch, int) else list(epoch)


def caption_keys(records: Sequence[Record], among: Sequence[Record] | None = None) -> Tensor:
    """Return the keys of all captions of the image of each record, int64 [V, C]; 0 where it has fewer.

    among: the records that may tell captions of the same image, by default these.
    """
    told: dict[str, dict[int, None]] = {}
    for record in records if among is None else among:
        own = told.setdefault(record.image.name, {})
        own.update(dict.fromkeys(caption_key(caption) for caption in record.captions))
    keys = torch.zeros((len(records), max(len(own) for own in told.values())), dtype=torch.int64)
    for row, record in enumerate(records):
        own = told[record.image.name]
        keys[row, : len(own)] = torch.tensor(list(own))
    return keys


# --- evaluation: everything, in order, once -------------------------------------------------------------------------


def image_batches(records: Iterable[Record], processor: ImageProcessor, batch_size: int) -> Iterator[VisionInput]:
    """Yield the images of the records in order, as in evaluation: uint8 pixels [V, 3, H, W], V at most `batch_size`.

    Raises:
        SampleError: an image cannot be used; an evaluation leaves none out.
    """
    for group in _grouped(records, batch_size):
        yield processor([picture_for(processor, record) for record in group])


def text_batches(texts: Iterable[str], processor: TextProcessor, batch_size: int) -> Iterator[TextInput]:
    """Yield the texts in order, tokenized, at most `batch_size` at a time."""
    for group in _grouped(texts, batch_size):
        yield processor(group)


def _grouped(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    group: list[Value] = []
    for value in values:
        group.append(value)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _distinct(values: Sequence[Value], keys: Sequence[Hashable]) -> tuple[list[Value], list[int]]:
    """Return the first value of each key, in order, and for each value the place of its key."""
    places: dict[Hashable, int] = {}
    distinct: list[Value] = []
    for value, key in zip(values, keys, strict=True):
        if key not in places:
            places[key] = len(distinct)
            distinct.append(value)
    return distinct, [places[key] for key in keys]
