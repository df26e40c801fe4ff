"""The stores of a model's frozen towers over a data set, in the form in which batches read them."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.api import Features
from renaissance.data.records import Record
from renaissance.errors import SpecError
from renaissance.features.keys import content_digest
from renaissance.features.samples import image_digests, store_captions, store_images
from renaissance.features.store import FeatureStore
from renaissance.models.one_tower import OneTower
from renaissance.models.two_tower import TwoTower, holds_still
from renaissance.progress import Progress


@dataclass(frozen=True, slots=True)
class StoredImages:
    """Reads what the frozen vision tower gave for records; `rows` are by the name of the image."""

    store: FeatureStore
    rows: Mapping[str, int]

    def __call__(self, records: Sequence[Record]) -> Features:
        """Return features [V, N, D] of the records' images."""
        return self.store.read([self.rows[record.image.name] for record in records])


@dataclass(frozen=True, slots=True)
class StoredTexts:
    """Reads what the frozen text tower gave for captions; `rows` are by the caption."""

    store: FeatureStore
    rows: Mapping[str, int]

    def __call__(self, texts: Sequence[str]) -> Features:
        """Return features [T, L, D] of the captions."""
        return self.store.read([self.rows[text] for text in texts])


@dataclass(frozen=True, slots=True)
class Stores:
    """What is stored of a model; None: that tower is computed."""

    vision: StoredImages | None = None
    text: StoredTexts | None = None


def check_storable(encoder: TwoTower | OneTower) -> None:
    """Refuse to store what is trained.

    Raises:
        SpecError: no tower is frozen, so there is nothing that could be stored.
    """
    if isinstance(encoder, OneTower):
        raise SpecError(
            "'store' keeps what frozen towers give, and the blocks of a one-tower model depend on the pair; leave "
            "'store' out."
        )
    if not (holds_still(encoder.vision) or holds_still(encoder.text)):
        raise SpecError(
            "'store' keeps what frozen towers give, and no tower is frozen; say 'frozen vision', or leave 'store' out."
        )
    if encoder.needs.layers or encoder.needs.embedded:
        raise SpecError(
            "'store' keeps the final tokens of frozen towers, and this fusion head reads more of them; leave 'store' "
            "out, or choose a head that reads final tokens, such as 'co-attention'."
        )


def frozen_stores(encoder: TwoTower | OneTower, records: Sequence[Record], folder: Path, progress: Progress) -> Stores:
    """Run the frozen towers of an encoder once over the records, or open what an earlier run stored.

    Raises:
        SpecError: no tower is frozen, so there is nothing that could be stored.
    """
    check_storable(encoder)
    assert isinstance(encoder, TwoTower)
    vision, text = holds_still(encoder.vision), holds_still(encoder.text)
    return Stores(
        _images(encoder.vision, records, folder, progress) if vision else None,
        _texts(encoder.text, records, folder, progress) if text else None,
    )


def _images(tower: Any, records: Sequence[Record], folder: Path, progress: Progress) -> StoredImages:
    digests = image_digests(records)
    bar = progress.bar("Frozen vision tower")
    store = store_images(folder, tower, records, config=_config(tower), digests=digests, progress=bar)
    return StoredImages(store, {record.image.name: store.rows[d] for record, d in zip(records, digests, strict=True)})


def _texts(tower: Any, records: Sequence[Record], folder: Path, progress: Progress) -> StoredTexts:
    captions = sorted({caption for record in records for caption in record.captions})
    bar = progress.bar("Frozen text tower")
    store = store_captions(folder, tower, captions, config=_config(tower), progress=bar)
    return StoredTexts(store, {caption: store.rows[content_digest(caption)] for caption in captions})


def _config(tower: Any) -> Mapping[str, Any]:
    """Return the config that a tower would be saved with."""
    with tempfile.TemporaryDirectory() as folder:
        config: Mapping[str, Any] = tower.save(Path(folder))
    return config
