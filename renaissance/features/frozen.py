"""The stores of what is frozen of a model over a data set, in the form in which batches read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.api import Features, Modality, Prefix
from renaissance.data.collate import ViewKey
from renaissance.data.records import DataSet, Record
from renaissance.features.contents import Contents
from renaissance.features.keys import store_key
from renaissance.features.layout import Cost
from renaissance.features.parts import Stored
from renaissance.features.store import FeatureStore, Flops, Forecast, Load, build_or_open, forecast
from renaissance.features.views import Reading, Text, sight_digests, sights_loader, text_digest, texts_loader
from renaissance.progress import Progress

TEXTS_A_STEP = 512
IMAGES_A_STEP = 64


@dataclass(frozen=True, slots=True)
class StoredImages:
    """Reads what was stored of images; `rows` are by view, `part` says what it is."""

    store: FeatureStore
    rows: Mapping[ViewKey, int]
    depth: int | None = None

    def __call__(self, records: Sequence[Record]) -> Features | Prefix:
        """Return what is stored of the records' images [V, N, D], as evaluation sees them."""
        return self.views([(record.image.name, None, None) for record in records])

    def has(self, keys: Sequence[ViewKey]) -> bool:
        """Return whether all of these views are stored."""
        return all(key in self.rows for key in keys)

    def views(self, keys: Sequence[ViewKey]) -> Features | Prefix:
        """Return what is stored of these views [V, N, D]."""
        return _as_stored(self.store.read([self.rows[key] for key in keys]), self.depth)


@dataclass(frozen=True, slots=True)
class StoredTexts:
    """Reads what was stored of texts; `rows` are by text, which may be a pair of them."""

    store: FeatureStore
    rows: Mapping[Text, int]
    depth: int | None = None

    def __call__(self, texts: Sequence[str]) -> Features | Prefix:
        """Return what is stored of the captions [T, L, D]."""
        return self.texts([(text,) for text in texts])

    def texts(self, texts: Sequence[Text]) -> Features | Prefix:
        """Return what is stored of the texts [T, L, D]."""
        return _as_stored(self.store.read([self.rows[text] for text in texts]), self.depth)

    def has(self, texts: Sequence[Text]) -> bool:
        """Return whether all of these texts are stored."""
        return all(text in self.rows for text in texts)


@dataclass(frozen=True, slots=True)
class Stores:
    """What is stored of a model; None: that tower is computed."""

    vision: StoredImages | None = None
    text: StoredTexts | None = None

    def cost(self) -> Cost:
        """Return what it took to compute what is read of them, in this run or in earlier ones."""
        stored = [one for one in (self.vision, self.text) if one is not None]
        return sum((one.store.cost(one.rows.values()) for one in stored), Cost())


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a store must hold for a data set: digests of its samples, and what gives them to the tower.

    facts: what the store's key is made of.
    """

    part: Stored
    facts: Mapping[str, Any]
    keys: Sequence[ViewKey] | Sequence[Text]
    digests: Sequence[str]
    load: Load

    @property
    def key(self) -> str:
        """The key of the store."""
        return store_key(self.facts)


def wanted(
    parts: Mapping[Modality, Stored], data: DataSet, reading: Reading, folder: Path, progress: Progress
) -> dict[Modality, Wanted]:
    """Return what the stores of these parts must hold; images that are there are read, to know their content.

    Raises:
        SampleError: an image cannot be read, and never was; the message names its row.
    """
    found: dict[Modality, Wanted] = {}
    if (vision := parts.get("vision")) is not None:
        sights = reading.sights(data)
        digests = sight_digests(sights, reading, Contents(folder), progress.bar("Content of the images"))
        load = sights_loader(sights, digests, reading, vision.tower.processor)
        found["vision"] = Wanted(vision, vision.facts(), [sight.key for sight in sights], digests, load)
    if (text := parts.get("text")) is not None:
        texts = reading.texts(data)
        load_texts = texts_loader(texts, text.tower.processor)
        found["text"] = Wanted(text, text.facts(), texts, [text_digest(one) for one in texts], load_texts)
    return found


def forecasts(wishes: Mapping[Modality, Wanted], folder: Path) -> dict[Modality, Forecast]:
    """Return what building the stores would add to `folder`; nothing is written.

    Raises:
        FeatureStoreError: a store is damaged.
    """
    return {
        modality: forecast(folder / wish.key, wish.part.encode, wish.digests, wish.load, dtype=wish.part.dtype)
        for modality, wish in wishes.items()
    }


def frozen_stores(
    wishes: Mapping[Modality, Wanted], folder: Path, progress: Progress, flops: Flops | None = None
) -> Stores:
    """Run what is frozen once over the samples that are not stored yet, and return the stores.

    flops: counts what towers have taken so far, for the stores to keep.

    Raises:
        FeatureStoreError: a store is damaged, or cannot hold what its tower gives.
        OutputError: the folder cannot be written, or the disk is too small.
    """
    images, texts = None, None
    if (vision := wishes.get("vision")) is not None:
        images = StoredImages(*_opened(vision, folder, progress, IMAGES_A_STEP, flops), vision.part.depth)
    if (text := wishes.get("text")) is not None:
        texts = StoredTexts(*_opened(text, folder, progress, TEXTS_A_STEP, flops), text.part.depth)
    return Stores(images, texts)


def _opened(
    wish: Wanted, folder: Path, progress: Progress, step: int, flops: Flops | None
) -> tuple[FeatureStore, dict[Any, int]]:
    store = build_or_open(
        folder / wish.key,
        wish.part.encode,
        wish.digests,
        wish.load,
        about=wish.facts,
        dtype=wish.part.dtype,
        progress=progress.bar(f"Frozen {wish.part.name}"),
        samples_a_step=step,
        flops=flops,
    )
    return store, {key: store.rows[digest] for key, digest in zip(wish.keys, wish.digests, strict=True)}


def _as_stored(features: Features, depth: int | None) -> Features | Prefix:
    return features if depth is None else Prefix(features.tokens, features.mask, depth)
