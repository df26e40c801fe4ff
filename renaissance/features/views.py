"""What of a data set is stored: each distinct image or region, as evaluation sees it and in its augmented views; texts.

A sample is known by its content: the bytes of the image, and what is done to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from renaissance.api import Item, TextInput, VisionInput
from renaissance.data.augment import augment, view_seed
from renaissance.data.collate import ViewKey
from renaissance.data.collate_items import View, tokenized, view_for
from renaissance.data.pixels import picture_for
from renaissance.data.records import DataSet, Record, Sample
from renaissance.errors import SampleError
from renaissance.features.contents import Contents, image_digests
from renaissance.features.keys import content_digest
from renaissance.features.store import Progress
from renaissance.recipe.training import Augmentation
from renaissance.toolkit.images import batched

Text = tuple[str, ...]
NO_AUGMENTATION = Augmentation()


@dataclass(frozen=True, slots=True)
class Sight:
    """One thing to store: a view of the image of a record, or of an image or region of an item."""

    key: ViewKey
    sample: Sample
    number: int = 0

    @property
    def source(self) -> Any:
        """Where the bytes of its image are."""
        return self.sample.image if isinstance(self.sample, Record) else self.sample.images[self.number]


@dataclass(frozen=True, slots=True)
class Reading:
    """How the samples of a run are read: by which seed, in which views; items by their boxes, or as pairs of texts."""

    seed: int = 0
    augmentation: Augmentation = NO_AUGMENTATION
    regions: bool = False
    paired: bool = False
    plain: bool = True

    def sights(self, data: DataSet) -> list[Sight]:
        """Return what is seen of a data set's images, each once."""
        measured = [*data.validation, *(sample for split in data.splits.values() for sample in split)]
        plain = [*data.held, *measured] if self.plain or not self._augments else measured
        found = {sight.key: sight for sample in plain for sight in self._of(sample)}
        if self._augments:
            found |= {sight.key: sight for sample in data.held for sight in self._augmented(sample)}
        return list(found.values())

    def texts(self, data: DataSet) -> list[Text]:
        """Return the distinct texts of a data set."""
        samples = [*data.held, *data.validation, *(sample for split in data.splits.values() for sample in split)]
        return sorted({text for sample in samples for text in self._texts_of(sample)})

    def pixels(self, sight: Sight, processor: Any) -> Tensor:
        """Return uint8 pixels [3, H, W] of what is seen.

        Raises:
            SampleError: the image cannot be read or decoded; the message names its row.
        """
        *_, seed = sight.key
        if seed is None:
            inputs: VisionInput = processor([_picture(sight, processor, None)])
            return inputs.pixels[0]
        return augment(_picture(sight, processor, self.augmentation.least_share), processor, self.augmentation, seed)

    def digest(self, sight: Sight, image: str) -> str:
        """Return the content digest of what is seen of an image with this digest."""
        _, box, seed = sight.key
        if box is None and seed is None:
            return image
        changes = None if seed is None else self.augmentation.model_dump(mode="json", exclude={"views"})
        return content_digest(json.dumps([image, box, seed, changes]))

    @property
    def _augments(self) -> bool:
        return self.augmentation.any and not self.regions

    def _of(self, sample: Sample) -> Iterator[Sight]:
        if isinstance(sample, Record):
            yield Sight((sample.image.name, None, None), sample)
        elif self.regions and sample.images:
            yield from (Sight((sample.images[0].name, box, None), sample) for box in sample.boxes)
        else:
            for number, image in enumerate(sample.images):
                yield Sight((image.name, None, None), sample, number)

    def _augmented(self, sample: Sample) -> Iterator[Sight]:
        assert self.augmentation.views is not None, "the recipe is refused"
        for sight in self._of(sample):
            for number in range(self.augmentation.views):
                yield replace(sight, key=(*sight.key[:2], view_seed(self.seed, number, sample.id)))

    def _texts_of(self, sample: Sample) -> Iterable[Text]:
        if isinstance(sample, Record):
            return [(caption,) for caption in sample.captions]
        if self.paired:
            return [sample.texts] if sample.texts else []
        return [(text,) for text in sample.texts]


def sight_digests(
    sights: Sequence[Sight], reading: Reading, contents: Contents, progress: Progress = lambda done, total: None
) -> list[str]:
    """Return the content digest of each sight; an image is read once.

    Raises:
        SampleError: an image cannot be read, and never was; the message names its row.
    """
    images = image_digests([(sight.source, sight.sample.row) for sight in sights], contents, progress)
    return [reading.digest(sight, image) for sight, image in zip(sights, images, strict=True)]


def text_digest(text: Text) -> str:
    """Return the content digest of a text, or of a pair of them."""
    # no text begins with this byte in UTF-8, so a pair is never taken for the text that looks like it
    return content_digest(text[0] if len(text) == 1 else b"\xff" + json.dumps(text).encode())


def sights_loader(
    sights: Sequence[Sight], digests: Sequence[str], reading: Reading, processor: Any
) -> Callable[[Sequence[int]], VisionInput]:
    """Return what gives the pixels [V, 3, H, W] of some of the sights, of which each has a content digest.

    An image that was replaced since it was digested is a SampleError: what it gives would be stored as another's.
    """

    def pixels(row: int) -> Tensor:
        sight = sights[row]
        found = reading.pixels(sight, processor)
        if reading.digest(sight, content_digest(sight.source.read())) != digests[row]:
            raise SampleError(
                f"{sight.sample.row}: '{sight.source.name}' was changed while the store was built. Run again when "
                "nothing writes there any more; what was finished is kept."
            )
        return found

    return lambda rows: batched([pixels(row) for row in rows])


def texts_loader(texts: Sequence[Text], processor: Any) -> Callable[[Sequence[int]], TextInput]:
    """Return what tokenizes some of the texts."""
    return lambda rows: tokenized([texts[row] for row in rows], processor)


def _picture(sight: Sight, processor: Any, share: float | None) -> Any:
    if isinstance(sight.sample, Record):
        return picture_for(processor, sight.sample, share=share)
    name, box, _ = sight.key
    item: Item = sight.sample
    return view_for(processor, item, View(0, sight.number, (name, box)), share=share)
