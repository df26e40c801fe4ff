"""Stores for what data sets are made of: the images of records, and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import nn

from renaissance.api import Backbone, TextInput, VisionInput
from renaissance.data.decode import read_record
from renaissance.data.pixels import picture_for
from renaissance.data.records import Record
from renaissance.features.keys import content_digest, kernel_facts, store_facts, store_key, tower_digest
from renaissance.features.store import FeatureStore, Progress, build_or_open

CAPTIONS_A_STEP = 512


def image_digests(records: Sequence[Record]) -> list[str]:
    """Return the content digest of the image of each record.

    Raises:
        SampleError: an image is missing or cannot be read; the message names its row.
    """
    return [content_digest(read_record(record)) for record in records]


def store_images(
    folder: Path,
    tower: Backbone,
    records: Sequence[Record],
    *,
    config: Mapping[str, Any],
    digests: Sequence[str] | None = None,
    progress: Progress = lambda done, total: None,
) -> FeatureStore:
    """Open, or build, the store of what a frozen vision tower gives for these images, preprocessed for evaluation.

    config: what the tower's `save` returned. digests: those of `image_digests`, where they are known.

    Raises:
        SampleError: an image cannot be read or decoded; the message names its row.
        FeatureStoreError: the store is damaged.
        OutputError: the folder cannot be written, or the disk is too small.
    """

    def load(rows: Sequence[int]) -> VisionInput:
        inputs: VisionInput = tower.processor([picture_for(tower.processor, records[row]) for row in rows])
        return inputs

    samples = image_digests(records) if digests is None else digests
    facts = tower_facts(tower, config, samples)
    return build_or_open(folder, tower, samples, load, key=store_key(facts), about=facts, progress=progress)


def store_captions(
    folder: Path,
    tower: Backbone,
    captions: Sequence[str],
    *,
    config: Mapping[str, Any],
    progress: Progress = lambda done, total: None,
) -> FeatureStore:
    """Open, or build, the store of what a frozen text tower gives for these captions; its rows: `content_digest`.

    config: what the tower's `save` returned.

    Raises:
        FeatureStoreError: the store is damaged.
        OutputError: the folder cannot be written, or the disk is too small.
    """

    def load(rows: Sequence[int]) -> TextInput:
        inputs: TextInput = tower.processor([captions[row] for row in rows])
        return inputs

    samples = [content_digest(caption) for caption in captions]
    facts = tower_facts(tower, config, samples)
    return build_or_open(
        folder,
        tower,
        samples,
        load,
        key=store_key(facts),
        about=facts,
        progress=progress,
        samples_a_step=CAPTIONS_A_STEP,
    )


def tower_facts(tower: Backbone, config: Mapping[str, Any], samples: Sequence[str]) -> dict[str, Any]:
    """Return everything that the key of this tower's features of these samples is made of."""
    module = cast(nn.Module, tower)
    weight = next(module.parameters())
    return store_facts(
        tower=tower_digest(module, config),
        dtype=weight.dtype,
        processor=tower.processor.describe(),
        samples=samples,
        kernel=kernel_facts(weight.device),
    )
