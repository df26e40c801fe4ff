"""Samples without one of their modalities, for a blind score: another one's images, or texts, stand in its place.

What stands there is drawn from the same samples, so it looks as ever, and says nothing. (Blank images would be unlike
all that a model was trained on.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from renaissance.api import Item, Modality
from renaissance.data.hashing import stable_hash
from renaissance.data.records import Record, Sample
from renaissance.errors import DataError

S = TypeVar("S", bound=Sample)
CALLED = {"vision": "images", "text": "texts"}
DRAWS = 64  # of samples, before those that follow are looked at


@dataclass(frozen=True, slots=True)
class Blindfold:
    """Gives a sample the images (modality "vision") or the texts ("text") of another one of `pool`.

    The draw is a function of (seed, epoch, sample id) and the order of `pool`: it depends on no batch and no process.
    """

    modality: Modality
    pool: Sequence[Sample]
    seed: int

    def __call__(self, sample: S, epoch: int = 0) -> S:
        """Return the sample with what another one has; its id, label and all else stay.

        Of a sample that has more of them, the first ones, if no other has as many.

        Raises:
            DataError: it has none of the modality, or boxes in the images that would go, or no other sample has others,
                at least as many as it.
        """
        mine = _held(sample, self.modality)
        if not mine:
            raise DataError(
                f"{sample.row}: '{sample.id}' has no {CALLED[self.modality]} that could be replaced by others."
            )
        if self.modality == "vision" and isinstance(sample, Item) and sample.boxes:
            raise DataError(
                f"{sample.row}: the boxes of '{sample.id}' lie in its own image, so no other can stand in its place; "
                "set evaluation.blind to 'text'."
            )
        first = self._first(sample, len(mine), epoch)
        longer: Sample | None = None
        for step in range(len(self.pool)):
            other = self.pool[(first + step) % len(self.pool)]
            theirs = _held(other, self.modality)
            if set(theirs) & set(mine):
                continue
            # an image may have any number of captions
            if len(theirs) == len(mine) or isinstance(sample, Record):
                return _given(sample, other, self.modality)
            if longer is None and len(theirs) > len(mine):
                longer = other
        if longer is None:
            raise _alone(sample, self.modality, len(mine))
        return _given(sample, longer, self.modality, len(mine))

    def _first(self, sample: Sample, count: int, epoch: int) -> int:
        """Return the number in the pool of the sample to try first.

        One with as many images or texts, if some draws find it: else of a pool in which such come one after the other
        (ARO's parts), many samples would get what the first of them has.
        """
        place = stable_hash("blind", self.seed, epoch, sample.id) % len(self.pool)
        for draw in range(DRAWS):
            if isinstance(sample, Record) or len(_held(self.pool[place], self.modality)) == count:
                break
            place = stable_hash("blind", self.seed, epoch, sample.id, draw) % len(self.pool)
        return place


def blinded(samples: Sequence[S], modality: Modality, seed: int) -> tuple[S, ...]:
    """Return all samples of a split, each with the images or the texts of another one of them.

    Images with captions change places, so that as many of them are there as before, and are searched.

    Raises:
        DataError: as `Blindfold` raises it.
    """
    if samples and all(isinstance(sample, Record) for sample in samples):
        return _exchanged(samples, modality, seed)
    blindfold = Blindfold(modality, samples, seed)
    return tuple(blindfold(sample) for sample in samples)


def _exchanged(records: Sequence[S], modality: Modality, seed: int) -> tuple[S, ...]:
    """Return the records, each with the image (or captions) that follows its own in an order that the seed draws."""
    holders = {_held(record, modality): record for record in records}
    if len(holders) < 2:
        raise _alone(records[0], modality, 1)
    order = sorted(holders, key=lambda held: stable_hash("blind", seed, *held))
    after = dict(zip(order, [*order[1:], order[0]], strict=True))
    return tuple(_given(record, holders[after[_held(record, modality)]], modality) for record in records)


def _held(sample: Sample, modality: Modality) -> tuple[str, ...]:
    """Return what of a sample goes: the names of its images, or its texts."""
    if isinstance(sample, Record):
        return (sample.image.name,) if modality == "vision" else sample.captions
    return tuple(image.name for image in sample.images) if modality == "vision" else sample.texts


def _given(sample: S, other: Sample, modality: Modality, count: int | None = None) -> S:
    """Return a sample with the images, or the texts, of another one of its kind; count: of an item, the first ones."""
    changes: dict[str, object]
    if isinstance(other, Record):
        changes = {"image": other.image} if modality == "vision" else {"captions": other.captions}
    else:
        changes = {"images": other.images[:count]} if modality == "vision" else {"texts": other.texts[:count]}
    return replace(sample, **changes)  # type: ignore[arg-type]  # fields of its class


def _alone(sample: Sample, modality: Modality, count: int) -> DataError:
    return DataError(
        f"{sample.row}: no other sample has {count} {CALLED[modality]} unlike those of '{sample.id}', so there is no "
        "blind score. Use more data, or blind the other modality."
    )
