"""The linear bridge: what two linear projections make of the same frozen towers, the least that a model must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renaissance.api import Features, Prefix
from renaissance.assemble import Assembly
from renaissance.data.captions import caption_key
from renaissance.data.collate import caption_keys, chosen_caption
from renaissance.data.records import DataSet, Record
from renaissance.data.sampling import BatchPlan
from renaissance.errors import SpecError
from renaissance.evaluation.splits import SplitScores, by_image, records_digest
from renaissance.features.frozen import Stores
from renaissance.models.two_tower import holds_still
from renaissance.progress import Progress
from renaissance.recipe import Recipe
from renaissance.recipe.evaluation import Bridge
from renaissance.recipe.training import Optimiser
from renaissance.toolkit.losses import multi_positive_nce
from renaissance.toolkit.metrics import finite, recalls
from renaissance.toolkit.pairing import first_of_equal, positives
from renaissance.toolkit.pooling import one_vector
from renaissance.training.optimiser import factor, make_optimiser, set_learning_rate

READ_AT_ONCE = 256
WARMUP = 0.05

Item = TypeVar("Item")


class LinearBridge(nn.Module):
    """One linear projection a modality into a shared space of `width`, with a learned temperature."""

    def __init__(self, vision: int, text: int, width: int) -> None:
        super().__init__()
        self.vision = nn.Linear(vision, width)
        self.text = nn.Linear(text, width)
        self.log_scale = nn.Parameter(torch.tensor(0.07).log().neg())

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        """Return cosine similarities [V, T] of images [V, Dv] and texts [T, Dt]."""
        return F.normalize(self.vision(images), dim=-1) @ F.normalize(self.text(texts), dim=-1).T


def check_bridge(assembly: Assembly, recipe: Recipe) -> None:
    """Refuse a bridge that could not be fitted or measured.

    Raises:
        SpecError: a tower is not stored, or the recipe does not measure retrieval.
    """
    if recipe.evaluation.bridge is None:
        return
    if not (recipe.store and holds_still(assembly.encoder.vision) and holds_still(assembly.encoder.text)):
        raise SpecError("The bridge is fitted on the stored features of both towers; freeze both, with 'store: true'.")
    if "retrieval" not in assembly.plan.tasks:
        raise SpecError("The bridge is measured by retrieval; add it under evaluation.tasks.")


def measure_bridge(recipe: Recipe, data: DataSet, stores: Stores, progress: Progress) -> list[SplitScores]:
    """Fit a bridge on the stored features of the training samples, and measure its retrieval on each split."""
    assert recipe.evaluation.bridge is not None
    table = _Table([*data.train, *(record for split in data.splits.values() for record in split)], stores)
    bridge = _fit(recipe.evaluation.bridge, recipe, data.held, table, progress)
    return [_measured(name, records, bridge, table) for name, records in data.splits.items()]


class _Table:
    """One vector for each stored image and caption: the tower's pooled one, or the mean of its tokens."""

    def __init__(self, records: Sequence[Record], stores: Stores) -> None:
        assert stores.vision is not None
        assert stores.text is not None
        captions = sorted({caption for record in records for caption in record.captions})
        self._image_rows = {record.image.name: row for row, record in enumerate(records)}
        self._caption_rows = {caption: row for row, caption in enumerate(captions)}
        self._images = torch.cat([_vector(stores.vision(part)) for part in _parts(records)])
        self._captions = torch.cat([_vector(stores.text(part)) for part in _parts(captions)])

    def images(self, records: Sequence[Record]) -> Tensor:
        """Return the vectors of the records' images [V, D]."""
        return self._images[[self._image_rows[record.image.name] for record in records]]

    def captions(self, captions: Sequence[str]) -> Tensor:
        """Return the vectors of captions [T, D]."""
        return self._captions[[self._caption_rows[caption] for caption in captions]]


def _vector(stored: Features | Prefix) -> Tensor:
    assert isinstance(stored, Features), "`check_bridge` asks for whole towers"
    return one_vector(stored).float()


def _parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    return [items[start : start + READ_AT_ONCE] for start in range(0, len(items), READ_AT_ONCE)]


def _fit(options: Bridge, recipe: Recipe, records: Sequence[Record], table: _Table, progress: Progress) -> LinearBridge:
    """Fit with InfoNCE, AdamW, warm-up and cosine decay, on the captions that the model saw in each epoch."""
    plan = BatchPlan(count=len(records), batch_size=min(options.batch_size, len(records)), seed=recipe.seed)
    steps = options.epochs * plan.steps_per_epoch
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        bridge = LinearBridge(
            table.images(records[:1]).shape[1], table.captions(records[0].captions[:1]).shape[1], options.width
        )
    optimiser = make_optimiser(bridge, Optimiser(lr=options.lr, weight_decay=options.weight_decay))
    for part in progress.track(plan.batches(0, steps), steps, "Linear bridge"):
        set_learning_rate(optimiser, factor(part.step, steps, int(WARMUP * steps), "cosine"))
        chosen = [records[index] for index in part.indices]
        captions = [chosen_caption(record, recipe.seed, part.epoch) for record in chosen]
        loss = _loss(bridge, chosen, captions, table)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    return bridge.eval()


def _loss(bridge: LinearBridge, records: Sequence[Record], captions: Sequence[str], table: _Table) -> Tensor:
    keys = torch.tensor([caption_key(caption) for caption in captions])
    belongs = positives(caption_keys(records), keys)
    logits = bridge.log_scale.exp().clamp(max=100) * bridge(table.images(records), table.captions(captions))
    every = torch.ones(len(records), dtype=torch.bool)
    by_image = multi_positive_nce(logits, belongs, first_of_equal(keys))
    return (by_image.mean() + multi_positive_nce(logits.T, belongs.T, every).mean()) / 2


def _measured(split: str, records: Sequence[Record], bridge: LinearBridge, table: _Table) -> SplitScores:
    captions = sum(len(record.captions) for record in records)
    records = by_image(records)
    texts = list({caption_key(caption): caption for record in records for caption in record.captions}.values())
    with torch.inference_mode():
        similarity = finite(bridge(table.images(records), table.captions(texts)), what="the linear bridge")
    belongs = positives(caption_keys(records), torch.tensor([caption_key(text) for text in texts]))
    scores = {"retrieval": tuple(recalls(similarity, similarity.T, belongs))}
    return SplitScores(split, len(records), captions, len(texts), scores, samples=records_digest(records))
