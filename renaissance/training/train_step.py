"""One module that holds model and tasks, so that its `forward` is all that DDP wraps.

Each distinct input is encoded once a step, however many tasks read it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from renaissance.api import Batch, Features, Joint, Modality, Pairs, Task, TaskLoss, Views, VisionInput
from renaissance.assemble import Assembly, Encoder
from renaissance.errors import SpecError
from renaissance.models.two_tower import TwoTower, holds_still
from renaissance.toolkit.distributed import total, world_size
from renaissance.toolkit.patches import hidden
from renaissance.toolkit.pooling import rows
from renaissance.toolkit.teaching import Taught
from renaissance.training.teacher import Momentum


class EncodedBatch:
    """The encoded inputs of a batch: each is computed at the first use, and once.

    tasks: where the learned patch lies that a task hides others with. taught: what a teacher makes of the batch.
    """

    def __init__(
        self, encoder: Encoder, batch: Batch, views: Mapping[str, Views], tasks: Mapping[str, Any] | None = None
    ) -> None:
        self._encoder, self._batch, self._views, self._tasks = encoder, batch, views, tasks or {}
        self.taught: dict[str, Taught] = {}
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
            images = None if views.images is None else self._encoder.encode_vision(self._shown(task, views.images))
            texts = None if views.texts is None else self._encoder.encode_text(views.texts)
            self._viewed[task] = images, texts
        return self._viewed[task]

    def represent(self, features: Features, modality: Modality) -> Tensor:
        """One vector [B, D] for each input of one modality."""
        return self._encoder.represent(features, modality)

    def _shown(self, task: str, images: VisionInput) -> VisionInput:
        """Return the images with the task's learned patch in the place of those that it masks.

        The patch is one of normalised pixels, so that any backbone embeds it as it embeds every other.
        """
        if images.masked_patches is None:
            return images
        processor: Any = self._encoder.vision.processor
        pixels = hidden(processor.normalise(images.pixels), images.masked_patches, self._tasks[task].mask_token)
        return VisionInput(pixels, images.mask)


@dataclass(frozen=True, slots=True)
class StepOutput:
    """The weighted loss to differentiate, and the figures of this step over all processes, without gradient."""

    loss: Tensor
    losses: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor]


class TrainStep(nn.Module):
    """Runs every task on a batch; `weights` are those of the tasks that are trained.

    The teachers and queues that tasks ask for (`toolkit.teaching`) are kept in `momentum`, and are no part of it.

    Raises:
        SpecError: a task hides patches of images that a frozen tower encodes, or reads one that is not trained.
    """

    def __init__(self, assembly: Assembly, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.encoder = assembly.encoder
        self.tasks = trained_tasks(assembly, weights)
        self.weights = dict(weights)
        check_trains_together(assembly, weights)
        self.order = in_order(self.tasks)
        self.momentum = Momentum(self.encoder, self.tasks)

    def forward(self, batch: Batch) -> StepOutput:
        """Return the loss of this process, scaled so that DDP's mean of gradients is that of the whole batch."""
        tasks = {name: cast(Task, task) for name, task in self.tasks.items()}
        views = {name: task.views(batch) for name, task in tasks.items()}
        encoded = EncodedBatch(self.encoder, batch, views, tasks)
        lessons = {
            teacher: EncodedBatch(teacher.encoder, batch, views, teacher.tasks) for teacher in self.momentum.distinct
        }
        published: dict[str, Mapping[str, Any]] = {}
        loss = torch.zeros((), device=batch.pairs.device)
        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for name in self.order:
            if name in self.momentum.teachers:
                encoded.taught[name] = self._taught(name, lessons, batch, published)
            result = self._run(tasks[name], encoded, batch, published)
            published[name] = result.published
            if name in self.momentum.queues:
                self.momentum.queues[name].push(result.published["enqueue"])
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
        return task.loss(encoded, _fused(self.encoder, pairs), pairs, batch)

    def _taught(
        self, name: str, lessons: Mapping[Any, EncodedBatch], batch: Batch, published: Mapping[str, Any]
    ) -> Taught:
        """Return what a task's teacher makes of a batch: it fuses what the task names, or the pairs that it makes."""
        teacher, task = self.momentum.teachers[name], self.tasks[name]
        encoded = lessons[teacher]
        chosen = getattr(task, "lesson", None) or cast(Task, task).pairs
        joint = _fused(teacher.encoder, chosen(encoded, batch, published))
        return Taught(encoded, teacher.tasks[name], joint, self.momentum.updates, self.momentum.past(name))


def trained_tasks(assembly: Assembly, names: Collection[str]) -> nn.ModuleDict:
    """Return the tasks of these names, in the order of the plan."""
    return nn.ModuleDict({name: assembly.tasks[name] for name in assembly.plan.tasks if name in names})


def check_trains_together(assembly: Assembly, names: Collection[str]) -> None:
    """Refuse tasks of which one could learn nothing; a `TrainStep` of them refuses the same.

    Raises:
        SpecError: a task hides patches of images that a frozen tower encodes, or reads one that is not trained.
    """
    tasks = trained_tasks(assembly, names)
    for name, task in tasks.items():
        _check_learns_from_patches(name, task, assembly.encoder)
    in_order(tasks)


def in_order(tasks: nn.ModuleDict) -> list[str]:
    """Return the names of tasks in the order in which they run: those that others read, first; else as given.

    Raises:
        SpecError: a task reads what another publishes that is not trained.
    """
    ordered: dict[str, None] = {}

    def add(name: str) -> None:
        for needed in getattr(tasks[name], "reads", ()):
            if needed not in tasks:
                raise SpecError(f"'{name}' reads what '{needed}' computes in training; train '{needed}' as well.")
            if needed not in ordered:
                add(needed)
        ordered[name] = None

    for name in tasks:
        add(name)
    return list(ordered)


def _fused(encoder: Encoder, pairs: Pairs | None) -> Joint | None:
    if pairs is None:
        return None
    vision, text = rows(pairs.vision, pairs.index[:, 0]), rows(pairs.text, pairs.index[:, 1])
    return encoder.fuse(vision, text, pairs.outputs, pairs.slots)


def _check_learns_from_patches(name: str, task: nn.Module, encoder: Encoder) -> None:
    if hasattr(task, "mask_token") and isinstance(encoder, TwoTower) and holds_still(encoder.vision):
        raise SpecError(
            f"'{name}' hides patches of the images, and the frozen vision tower would learn nothing from it (its "
            f"outputs may even come from a store); leave '{name}' out, or train the vision tower."
        )
