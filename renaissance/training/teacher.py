"""Momentum teachers and queues of past outputs: what a training keeps beside the model, and no optimiser sees.

A teacher is a copy of encoder and heads that follows them: after each update its weights are m times its own plus
1 - m times theirs (ALBEF, arXiv 2107.07651, section 3.4). What is frozen for good is shared, not copied.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from renaissance.assemble import Encoder
from renaissance.toolkit.pairing import stacked

PREFIX = "momentum."


class Teacher:
    """A copy of an encoder and of its tasks, in eval mode and without gradient, that follows them by `momentum`.

    thawed: ids of parameters that are copied although they are frozen now, because a later stage trains them.
    """

    def __init__(
        self, encoder: Encoder, tasks: nn.ModuleDict, momentum: float, thawed: Collection[int] = frozenset()
    ) -> None:
        self.momentum = momentum
        self._student = nn.ModuleDict({"encoder": encoder, "tasks": tasks})
        held_still = [held for held in self._student.parameters() if not held.requires_grad and id(held) not in thawed]
        shared: dict[int, Any] = {id(held): held for held in held_still}
        self._copy = copy.deepcopy(self._student, memo=shared).requires_grad_(False).eval()
        own = dict(self._copy.named_parameters())
        self._pairs = [(own[name], held) for name, held in self._student.named_parameters() if own[name] is not held]

    @property
    def encoder(self) -> Encoder:
        """The teacher's encoder."""
        return self._copy["encoder"]  # type: ignore[return-value]  # a ModuleDict says only nn.Module

    @property
    def tasks(self) -> Mapping[str, Any]:
        """The teacher's copies of the tasks."""
        tasks: Any = self._copy["tasks"]
        return dict(tasks.items())

    @torch.no_grad()
    def update(self) -> None:
        """Move the weights towards the student's; statistics and other buffers become the student's."""
        if self.momentum == 1.0:
            return
        own: list[Tensor] = [own for own, _ in self._pairs]
        torch._foreach_lerp_(own, [held.detach() for _, held in self._pairs], 1.0 - self.momentum)
        for own_buffer, held_buffer in zip(self._copy.buffers(), self._student.buffers(), strict=True):
            own_buffer.copy_(held_buffer)

    def tensors(self) -> dict[str, Tensor]:
        """Return what of it is its own: the weights that move, and its buffers that are saved."""
        moving = {id(own) for own, _ in self._pairs}
        buffers = {id(buffer) for buffer in self._copy.buffers()}
        state = self._copy.state_dict(keep_vars=True)
        return {name: tensor for name, tensor in state.items() if id(tensor) in moving | buffers}


class Queue:
    """The newest `size` rows of named tensors, newest first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rows: dict[str, Tensor] = {}

    @torch.no_grad()
    def push(self, rows: Mapping[str, Tensor]) -> None:
        """Put rows [B, ...] before those that are there, and drop the oldest beyond the size."""
        for name, new in rows.items():
            kept = self.rows.get(name)
            whole = new.detach() if kept is None else stacked(new.detach(), kept)
            self.rows[name] = whole[: self.size].clone()


class Momentum:
    """The teachers and queues that the tasks of a training ask for (see `toolkit.teaching`).

    Tasks that name the same momentum share a teacher. thawed: as a `Teacher` takes it.
    """

    def __init__(self, encoder: Encoder, tasks: nn.ModuleDict, thawed: Collection[int] = frozenset()) -> None:
        wanted = {name: getattr(task, "needs_teacher", None) for name, task in tasks.items()}
        momenta = sorted({momentum for momentum in wanted.values() if momentum is not None})
        teachers = {momentum: Teacher(encoder, tasks, momentum, thawed) for momentum in momenta}
        self.teachers = {name: teachers[momentum] for name, momentum in wanted.items() if momentum is not None}
        sizes = {name: getattr(task, "needs_queue", 0) for name, task in tasks.items()}
        self.queues = {name: Queue(size) for name, size in sizes.items() if size}
        self.updates = 0

    @property
    def distinct(self) -> Iterable[Teacher]:
        """Each teacher once."""
        return dict.fromkeys(self.teachers.values())

    def update(self) -> None:
        """Follow an update of the model."""
        self.updates += 1
        for teacher in self.distinct:
            teacher.update()

    def past(self, task: str) -> Mapping[str, Tensor]:
        """Return what the queue of a task holds."""
        return dict(self.queues[task].rows) if task in self.queues else {}

    # --- checkpoints --------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Return all that a resumed training needs, by names that begin with `PREFIX`."""
        teachers = {
            f"{PREFIX}teacher.{teacher.momentum!r}/{name}": tensor
            for teacher in self.distinct
            for name, tensor in teacher.tensors().items()
        }
        queues = {
            f"{PREFIX}queue.{task}/{name}": rows
            for task, queue in self.queues.items()
            for name, rows in queue.rows.items()
        }
        return {**teachers, **queues}

    def make_room(self, checkpoint: Path, device: torch.device) -> None:
        """Give the queues the shapes that a checkpoint has: how full they are is known from it alone."""
        with safe_open(checkpoint / "model.safetensors", "pt") as file:
            for key in file.keys():  # noqa: SIM118  # no mapping
                task, _, name = key.removeprefix(f"{PREFIX}queue.").rpartition("/")
                if key.startswith(f"{PREFIX}queue.") and task in self.queues:
                    self.queues[task].rows[name] = file.get_tensor(key).to(device)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        for name, own in self.tensors().items():
            own.copy_(tensors[name])


class Kept(nn.Module):
    """A model together with the momentum state of its training, as checkpoints hold them.

    It has the parameters of the model under their own names, so that an optimiser's state finds them.
    """

    def __init__(self, model: nn.Module, momentum: Momentum) -> None:
        super().__init__()
        self.model = model
        self.momentum = momentum

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the tensors of both."""
        return {**self.model.state_dict(*args, **kwargs), **self.momentum.tensors()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take both back."""
        own = {name: tensor for name, tensor in state_dict.items() if not name.startswith(PREFIX)}
        found = self.model.load_state_dict(own, strict=strict, assign=assign)
        self.momentum.load({name: tensor for name, tensor in state_dict.items() if name.startswith(PREFIX)})
        return found

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        """Return the parameters of the model."""
        return self.model.named_parameters(*args, **kwargs)
