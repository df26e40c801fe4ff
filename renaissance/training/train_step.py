"""One module that holds model and tasks, so that its `forward` is all that DDP wraps.

Each distinct input is encoded once a step, however many tasks read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from renaissance.api import Batch, Features, Modality, Task, TaskLoss, Views
from renaissance.assemble import Assembly, Encoder
from renaissance.toolkit.distributed import total, world_size
from renaissance.toolkit.pooling import rows


class EncodedBatch:
    """The encoded inputs of a batch: each is computed at the first use, and once."""

    def __init__(self, encoder: Encoder, batch: Batch, views: Mapping[str, Views]) -> None:
        self._encoder, self._batch, self._views = encoder, batch, views
        self._vision: Features | None = batch.stored_vision
        self._text: Features | None = batch.stored_text
        self._viewed: dict[str, tuple[Features | None, Features | None]] = {}

    @property
    def vision(self) -> Features:
        """The distinct images [V, N, D], from the store if they are stored."""
        if self._vision is None:
            assert self._batch.images is not None
            self._vision = self._encoder.encode_vision(self._batch.images)
        return self._vision

    @property
    def text(self) -> Features:
        """The distinct texts, unmasked [T, L, D], from the store if they are stored."""
        if self._text is None:
            self._text = self._encoder.encode_text(self._batch.texts)
        return self._text

    def view(self, task: str) -> tuple[Features | None, Features | None]:
        """The (images, texts) that this task's `views` asked for."""
        if task not in self._viewed:
            views = self._views[task]
            images = None if views.images is None else self._encoder.encode_vision(views.images)
            texts = None if views.texts is None else self._encoder.encode_text(views.texts)
            self._viewed[task] = images, texts
        return self._viewed[task]

    def represent(self, features: Features, modality: Modality) -> Tensor:
        """One vector [B, D] for each input of one modality."""
        return self._encoder.represent(features, modality)


@dataclass(frozen=True, slots=True)
class StepOutput:
    """The weighted loss to differentiate, and the figures of this step over all processes, without gradient."""

    loss: Tensor
    losses: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor]


class TrainStep(nn.Module):
    """Runs every task on a batch; `weights` are those of the tasks that are trained."""

    def __init__(self, assembly: Assembly, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.encoder = assembly.encoder
        self.tasks = nn.ModuleDict({name: assembly.tasks[name] for name in assembly.plan.tasks if name in weights})
        self.weights = dict(weights)

    def forward(self, batch: Batch) -> StepOutput:
        """Return the loss of this process, scaled so that DDP's mean of gradients is that of the whole batch."""
        tasks = {name: cast(Task, task) for name, task in self.tasks.items()}
        encoded = EncodedBatch(self.encoder, batch, {name: task.views(batch) for name, task in tasks.items()})
        published: dict[str, Mapping[str, Any]] = {}
        loss = torch.zeros((), device=batch.pairs.device)
        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for name, task in tasks.items():
            result = self._run(task, encoded, batch, published)
            published[name] = result.published
            count = total(result.count.float()).clamp(min=1)
            loss = loss + self.weights[name] * result.sum * world_size() / count
            losses[name] = total(result.sum.float()) / count
            metrics |= {
                f"{name}/{key}": total(a.float()) / total(n.float()).clamp(min=1)
                for key, (a, n) in result.metrics.items()
            }
        return StepOutput(loss, losses, metrics)

    def _run(self, task: Task, encoded: EncodedBatch, batch: Batch, published: Mapping[str, Any]) -> TaskLoss:
        pairs = task.pairs(encoded, batch, published)
        if pairs is None:
            return task.loss(encoded, None, None, batch)
        vision, text = rows(pairs.vision, pairs.index[:, 0]), rows(pairs.text, pairs.index[:, 1])
        joint = self.encoder.fuse(vision, text, pairs.outputs, pairs.slots)
        return task.loss(encoded, joint, pairs, batch)
