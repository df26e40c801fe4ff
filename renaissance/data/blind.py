"""Items without one of their modalities, for a blind score: another item's images, or texts, stand in its place.

What stands there is drawn from the same items, so it looks as ever, and says nothing. (Blank images would be unlike all
that a model was trained on.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from renaissance.api import Item, Modality
from renaissance.data.hashing import stable_hash
from renaissance.errors import DataError

CALLED = {"vision": "images", "text": "texts"}


@dataclass(frozen=True, slots=True)
class Blindfold:
    """Gives an item the images (modality "vision") or the texts ("text") of another one of `pool`.

    The draw is a function of (seed, epoch, item id) and the order of `pool`, so it depends on no batch and no process.
    """

    modality: Modality
    pool: Sequence[Item]
    seed: int

    def __call__(self, item: Item, epoch: int = 0) -> Item:
        """Return the item with what another one has; its id, label and all else stay.

        Raises:
            DataError: it has none of the modality, or boxes in the images that would go, or no other item has others,
                as many as it.
        """
        mine = self._of(item)
        if not mine:
            raise DataError(f"{item.row}: '{item.id}' has no {CALLED[self.modality]} that could be replaced by others.")
        if self.modality == "vision" and item.boxes:
            raise DataError(
                f"{item.row}: the boxes of '{item.id}' lie in its own image, so no other can stand in its place; set "
                "evaluation.blind to 'text'."
            )
        first = stable_hash("blind", self.seed, epoch, item.id) % len(self.pool)
        for step in range(len(self.pool)):
            other = self.pool[(first + step) % len(self.pool)]
            theirs = self._of(other)
            if len(theirs) == len(mine) and not set(theirs) & set(mine):
                return replace(item, images=other.images) if self.modality == "vision" else replace(item, texts=theirs)
        raise DataError(
            f"{item.row}: no other item has {len(mine)} {CALLED[self.modality]} unlike those of '{item.id}', so there "
            "is no blind score. Use more data, or blind the other modality."
        )

    def _of(self, item: Item) -> tuple[str, ...]:
        """Return what of an item goes: the names of its images, or its texts."""
        return tuple(image.name for image in item.images) if self.modality == "vision" else item.texts


def blinded(items: Sequence[Item], modality: Modality, seed: int) -> tuple[Item, ...]:
    """Return all items of a split, each with the images or the texts of another one of them.

    Raises:
        DataError: as `Blindfold` raises it.
    """
    blindfold = Blindfold(modality, items, seed)
    return tuple(blindfold(item) for item in items)
