"""One module that holds model and tasks, so that its `forward` is all that DDP wraps.

Each distinct input is encoded once a step, however many tasks read it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from renaissance.api import Batch, Task, TaskLoss
from renaissance.assemble import Assembly, Encoder
from renaissance.errors import SpecError
from renaissance.models.two_tower import TwoTower, holds_still
from renaissance.toolkit.distributed import total, world_size
from renaissance.toolkit.teaching import Taught
from renaissance.training.cached import check_cached
from renaissance.training.encoded import EncodedBatch
from renaissance.training.metering import Meter, Metered
from renaissance.training.stages import Stage, ever_trained, holds_whole
from renaissance.training.teacher import Momentum


@dataclass(frozen=True, slots=True)
class StepOutput:
    """The weighted loss to differentiate, and the figures of this step over all processes, without gradient."""

    loss: Tensor
    losses: Mapping[str, Tensor]
    metrics: Mapping[str, Tensor]


class TrainStep(nn.Module):
    """Runs every task on a batch; `weights` are those of the tasks that are trained.

    The teachers and queues that tasks ask for (`toolkit.teaching`) are kept in `momentum`, and are no part of it.
    parts: in how many the encoder runs a batch; loss and gradient stay those of the whole batch. stages: of the
    training, where what trains changes: a teacher has its own copy of all that trains in one of them.

    Raises:
        SpecError: a task hides patches of images that a frozen tower encodes, or reads one that is not trained; or the
            batch cannot run in parts.
    """

    def __init__(
        self, assembly: Assembly, weights: Mapping[str, float], parts: int = 1, stages: Sequence[Stage] = ()
    ) -> None:
        super().__init__()
        self.encoder = assembly.encoder
        self.tasks = trained_tasks(assembly, weights)
        self.weights = dict(weights)
        check_trains_together(assembly, weights, stages)
        self.order = in_order(self.tasks)
        self.momentum = Momentum(self.encoder, self.tasks, ever_trained(self.encoder, stages))
        self.parts = parts
        self.meter = Meter()
        if parts > 1:
            check_cached(assembly)

    def forward(self, batch: Batch) -> StepOutput:
        """Return the loss of this process, scaled so that DDP's mean of gradients is that of the whole batch."""
        tasks = {name: cast(Task, task) for name, task in self.tasks.items()}
        views = {name: task.views(batch) for name, task in tasks.items()}
        encoded = EncodedBatch(self.encoder, batch, views, tasks, self.parts, self.meter)
        asked = {name: views[name] for name in self.momentum.teachers}
        lessons = {
            teacher: EncodedBatch(teacher.encoder, batch, asked, teacher.tasks, self.parts, self.meter, taught=True)
            for teacher in self.momentum.distinct
        }
        published: dict[str, Mapping[str, Any]] = {}
        loss = torch.zeros((), device=batch.pairs.device)
        losses: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for name in self.order:
            if name in self.momentum.teachers:
                encoded.taught[name] = self._taught(name, lessons, batch, published)
            result = self._run(name, encoded, batch, published)
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

    def _run(self, name: str, encoded: EncodedBatch, batch: Batch, published: Mapping[str, Any]) -> TaskLoss:
        task, heads = cast(Task, self.tasks[name]), partial(self.meter.run, "heads", taught=False)
        pairs = heads(lambda: task.pairs(encoded, batch, published))
        joint = None if pairs is None else Metered(self.encoder, self.parts, self.meter).fuse(pairs)
        result = heads(lambda: task.loss(encoded, joint, pairs, batch))
        self.meter.predicted(name, result.count)
        return result

    @torch.no_grad()
    def _taught(
        self, name: str, lessons: Mapping[Any, EncodedBatch], batch: Batch, published: Mapping[str, Any]
    ) -> Taught:
        """Return what a task's teacher makes of a batch: it fuses what the task names, or the pairs that it makes."""
        teacher, task = self.momentum.teachers[name], self.tasks[name]
        encoded = lessons[teacher]
        chosen = getattr(task, "lesson", None) or cast(Task, task).pairs
        pairs = self.meter.run("heads", lambda: chosen(encoded, batch, published), taught=True)
        joint = None if pairs is None else Metered(teacher.encoder, self.parts, self.meter, taught=True).fuse(pairs)
        return Taught(encoded, teacher.tasks[name], joint, self.momentum.updates, self.momentum.past(name))


def trained_tasks(assembly: Assembly, names: Collection[str]) -> nn.ModuleDict:
    """Return the tasks of these names, in the order of the plan."""
    return nn.ModuleDict({name: assembly.tasks[name] for name in assembly.plan.tasks if name in names})


def check_trains_together(assembly: Assembly, names: Collection[str], stages: Sequence[Stage] = ()) -> None:
    """Refuse tasks of which one could learn nothing, in one of the stages; a `TrainStep` of them refuses the same.

    Raises:
        SpecError: a task hides patches of images that a frozen tower encodes, or reads one that is not trained.
    """
    tasks = trained_tasks(assembly, names)
    for name, task in tasks.items():
        _check_learns_from_patches(name, task, assembly.encoder, stages)
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


def _check_learns_from_patches(name: str, task: nn.Module, encoder: Encoder, stages: Sequence[Stage]) -> None:
    if not hasattr(task, "mask_token") or not isinstance(encoder, TwoTower):
        return
    still = [stage.label for stage in stages if holds_whole(encoder, "vision", stage)]
    if still or holds_still(encoder.vision):
        when = f" after {still[0]}" if still else ""
        raise SpecError(
            f"'{name}' hides patches of the images, and the frozen vision tower would learn nothing from it{when} (its "
            f"outputs may even come from a store); leave '{name}' out, or train the vision tower."
        )
