"""What a data set is made of: records of one image and its captions, in named splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from renaissance.api import Item
from renaissance.data.sampling import Feed


class ImageSource(Protocol):
    """Where the bytes of one image are; `name` says it in an error message."""

    @property
    def name(self) -> str:
        """The path, or the row of a table."""
        ...

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            SampleError: it is missing or cannot be read.
        """
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """One image with all its captions. `row` says where it came from ("captions.jsonl, row 17") in error messages."""

    id: str
    image: ImageSource
    captions: tuple[str, ...]
    row: str
    fields: Mapping[str, str] = field(default_factory=dict)


# Images with captions, or items of prepared data: one kind in a data set.
Sample = Record | Item


def images_of(sample: Sample) -> tuple[ImageSource, ...]:
    """Return the images of a sample: of a record the one."""
    return (sample.image,) if isinstance(sample, Record) else sample.images


@dataclass(frozen=True, slots=True)
class DataSet:
    """Samples to train on, samples set aside for evaluation in training, and the held-out splits by name.

    facts: what was found and guessed, for the user ("column of images: 'file'"). skipped: bad rows left out.
    """

    train: Sequence[Any] | Feed
    validation: tuple[Any, ...]
    splits: Mapping[str, tuple[Any, ...]]
    facts: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def held(self) -> Sequence[Any]:
        """The samples to train on, of data that are held whole; the recipe refuses what needs them of others."""
        assert isinstance(self.train, Sequence), "the recipe is refused"
        return self.train

    @property
    def distinct(self) -> int:
        """How many samples there are to train on; of a mixture those of all parts, and not the slots of an epoch."""
        return len(self.train) if isinstance(self.train, Sequence) else self.train.distinct
