"""What a momentum teacher and a queue give to a task; the engine keeps both.

A task (an nn.Module) asks for them by its attributes, which follow from its options:

| attribute | value |
|---|---|
| needs_teacher | momentum of the teacher that it learns from, 1.0 for one that never moves; None: none |
| needs_queue | how many past rows of what it publishes as "enqueue" the engine keeps for it; 0: none |
| reads | names of tasks whose published values it reads under its options; they run before it |
| lesson | what the teacher fuses, called as `pairs` is; without it the teacher fuses what `pairs` returns |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from torch import Tensor

from renaissance.api import Encoded, Joint, Options


@dataclass(frozen=True, slots=True)
class Taught:
    """What the teacher makes of a batch for one task, without gradient.

    encoded: the batch as the teacher encodes it. task: the teacher's copy of the task. joint: its fusion of the
    task's pairs. updates: of the weights, so far. past: the queue, newest first; empty before the first batch.
    """

    encoded: Encoded
    task: Any
    joint: Joint | None
    updates: int
    past: Mapping[str, Tensor]


class TaughtEncoded(Encoded, Protocol):
    """The encoded inputs of a batch in a training with a teacher."""

    @property
    def taught(self) -> Mapping[str, Taught]:
        """What each task with a teacher is taught."""
        ...


def taught(encoded: Encoded, task: str) -> Taught:
    """Return what the task of this name is taught; the engine runs a teacher for every task that asks for one."""
    return cast(TaughtEncoded, encoded).taught[task]


class Imitation(Protocol):
    """Options of a task that learns from a momentum teacher."""

    distillation: float
    distillation_ramp: int
    momentum: float


def needed_momentum(options: Options) -> float | None:
    """Return the momentum of the teacher that these options ask for, if they do."""
    imitation = cast(Imitation, options)
    return imitation.momentum if imitation.distillation else None


def teacher_share(options: Options, updates: int) -> float:
    """Return the weight of the teacher's targets after so many updates: it grows linearly from 0 to its full value."""
    imitation = cast(Imitation, options)
    if updates >= imitation.distillation_ramp:
        return imitation.distillation
    return imitation.distillation * updates / imitation.distillation_ramp
