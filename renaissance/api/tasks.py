"""What tasks are, and what they are given.

Letters in shapes: V distinct images of a batch, T distinct texts, P pairs of an image and a text, B any of the three,
N tokens of a vision tower, L tokens of a text, D width, C most captions that one image has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from renaissance.api.entries import Modality, Output
from renaissance.api.inputs import Batch, Features, Item, Joint, TextInput, VisionInput

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Views:
    """Further inputs that a task needs encoded; they come back from `Encoded.views[task]`."""

    texts: TextInput | None = None
    images: VisionInput | None = None


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which pairs to fuse: rows of `vision` and of `text` by index int64 [P, 2], and what is read of the fusion.

    slots int64 [P]: which image of its item each pair has, where items have several. targets: what `loss` compares
    the joint with, where the task itself made the pairs.
    """

    vision: Features
    text: Features
    index: Tensor
    outputs: frozenset[Output]
    slots: Tensor | None = None
    targets: Tensor | None = None


class Encoded(Protocol):
    """The encoded inputs of a batch. Each is computed at the first use and once."""

    @property
    def vision(self) -> Features:
        """The distinct images [V, N, D]."""
        ...

    @property
    def text(self) -> Features:
        """The distinct texts, unmasked [T, L, D]."""
        ...

    def view(self, task: str) -> tuple[Features | None, Features | None]:
        """The (images, texts) that this task's `views` asked for."""
        ...

    def represent(self, features: Features, modality: Modality) -> Tensor:
        """One vector [B, D] for each input of one modality."""
        ...


@dataclass(frozen=True, slots=True)
class TaskLoss:
    """A loss as sum and count, so that it is the same whatever the number of processes.

    published: what later tasks read. metrics: name -> (sum, count), for the log.
    """

    sum: Tensor
    count: Tensor
    published: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)


class Task(Protocol):
    """A task (an nn.Module with its head); the engine runs the encoder, so each distinct input is encoded once."""

    def views(self, batch: Batch) -> Views:
        """Return further inputs to encode."""
        ...

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> Pairs | None:
        """Return the pairs to fuse; None: no fusion."""
        ...

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        """Return the loss of this process's share of the batch; `joint` is the fusion of what `pairs` returned."""
        ...


class ItemTask(Task, Protocol):
    """A task on items (an nn.Module): each has one answer.

    slots: images that one item has; their pairs are told apart where it is more than 1. regions: each box of an item is
    an image of its own, cropped. paired: an item's two texts are tokenized as one pair. targets: picklable, as loader
    processes call it; what it gives is `batch.targets[name]`.
    """

    name: str
    slots: int
    regions: bool
    paired: bool

    @property
    def targets(self) -> Callable[[Sequence[Item]], Tensor]:
        """What makes the targets of a batch of the items.

        Raises:
            DataError: an item lacks its label, or has one that the task does not know.
        """
        ...

    def decide(self, encoded: Encoded, joint: Joint | None, batch: Batch) -> Sequence[Tensor]:
        """Return one prediction for each item of the batch, in rising order of the items."""
        ...
