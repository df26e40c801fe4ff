"""FLOPs and saved bytes of a training step, counted while it runs on tensors without values.

Equal blocks in a row are run twice and three times, never all: the difference is what each further one costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from renaissance.api import Batch, TowerNeeds
from renaissance.cost.flops import ATEN, by_number, product_flops, storage
from renaissance.plans import AnyPlan, OneTowerPlan
from renaissance.training.train_step import TrainStep

KEPT = 2  # equal blocks of a run that are always run: the first may need no gradient of its input
# numbers of a block that say which one it is, and not what it computes
PLACES = frozenset({"layer_idx", "layer_index", "layer_id", "training"})


@dataclass(frozen=True, slots=True)
class Flops:
    """FLOPs, two for each multiplication and addition. attention: the share of products between tokens, both ways."""

    forward: int
    backward: int
    attention: int

    @property
    def training(self) -> int:
        """Forward and backward."""
        return self.forward + self.backward


# --- counting -------------------------------------------------------------------------------------------------------


class FlopCount(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own is not annotated
    """Counts the FLOPs of matrix products and convolutions; `attention` are those of batches of products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own is not annotated
        self.total = 0
        self.attention = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count it."""
        packet, args = func._overloadpacket, by_number(func._overloadpacket, args)
        output = func(*args, **(kwargs or {}))
        flops = product_flops(packet, args, output)
        self.total += flops
        if packet in (ATEN.bmm, ATEN.baddbmm):
            self.attention += flops
        return output


class SavedBytes:
    """Counts the bytes that autograd keeps for the backward, each storage once, those of parameters left out."""

    def __init__(self, module: nn.Module) -> None:
        self._known = {storage(parameter) for parameter in module.parameters()}
        self._kept: list[Tensor] = []  # a storage that is freed may give its address to another
        self.total = 0

    def pack(self, tensor: Tensor) -> Tensor:
        """Count a tensor that is saved."""
        key = storage(tensor)
        if key not in self._known:
            self._known.add(key)
            self._kept.append(tensor)
            self.total += tensor.untyped_storage().nbytes()
        return tensor

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count what is saved inside."""
        with torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor):
            yield


@dataclass(frozen=True, slots=True)
class _Figures:
    """What one step took: FLOPs forward, backward and of attention, and bytes saved."""

    values: tuple[int, int, int, int]

    def plus(self, times: int, more: _Figures, less: _Figures) -> _Figures:
        """Return these figures, and `times` the difference of two others."""
        changed = [
            own + times * (one - other) for own, one, other in zip(self.values, more.values, less.values, strict=True)
        ]
        return _Figures(cast("tuple[int, int, int, int]", tuple(changed)))


def measured(step: TrainStep, batch: Batch, runs: Sequence[Run]) -> tuple[Flops, int]:
    """Return the FLOPs of a step and the bytes that it saves, from steps with few blocks of each run."""
    with _shortened(runs, None):
        _one_step(step, batch)  # what a model looks up once, and keeps, is no part of a step
        base = total = _one_step(step, batch)
    for run in runs:
        with _shortened(runs, run):
            total = total.plus(run.count - KEPT, _one_step(step, batch), base)
    forward, backward, attention, saved = total.values
    return Flops(forward, backward, attention), saved


def _one_step(step: TrainStep, batch: Batch) -> _Figures:
    saved = SavedBytes(step)
    with sdpa_kernel(SDPBackend.MATH), FlopCount() as count:
        with saved.watch():
            loss = step(batch).loss
        forward = count.total
        if loss.requires_grad:
            loss.backward()
    for parameter in step.parameters():
        parameter.grad = None
    return _Figures((forward, count.total - forward, count.attention, saved.total))


# --- equal blocks in a row --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """Equal blocks in a row: `count` of them from `start` on, in a list of modules."""

    blocks: nn.ModuleList | nn.Sequential
    start: int
    count: int


def reads_layers(plan: AnyPlan) -> bool:
    """Return whether a fusion head reads or runs single layers of a tower, whose number then matters."""
    return not isinstance(plan, OneTowerPlan) and plan.fusion.entry.needs(plan.fusion.options) != TowerNeeds()


def runs_of(module: nn.Module) -> Iterator[Run]:
    """Yield the runs of equal blocks that are long enough to be worth a step of their own."""
    found = list(_own_runs(module)) if isinstance(module, nn.ModuleList | nn.Sequential) else []
    yield from found
    if not found:
        for child in module.children():
            yield from runs_of(child)


def _own_runs(blocks: nn.ModuleList | nn.Sequential) -> Iterator[Run]:
    signatures = [_signature(block) for block in blocks]
    start = 0
    for index in range(1, len(signatures) + 1):
        if index == len(signatures) or signatures[index] != signatures[start]:
            if index - start > KEPT + 1 and any(True for _ in blocks[start].parameters()):
                yield Run(blocks, start, index - start)
            start = index


def _signature(block: nn.Module) -> tuple[object, ...]:
    """Return what makes two blocks cost the same: classes, settings, and shapes of parameters that train or not."""
    parts: list[object] = []
    for name, module in block.named_modules():
        settings = tuple(
            (key, bool(value) if key == "drop_prob" else value)
            for key, value in sorted(vars(module).items())
            if isinstance(value, bool | int | float | str | tuple) and key not in PLACES and key[0] != "_"
        )
        shapes = [(key, tuple(p.shape), p.requires_grad) for key, p in module.named_parameters(recurse=False)]
        parts.append((name, type(module), settings, module.training, tuple(shapes)))
    return tuple(parts)


@contextmanager
def _shortened(runs: Sequence[Run], longer: Run | None) -> Iterator[None]:
    """Leave out the blocks of each run beyond the first two, or beyond three of `longer`."""
    lists = {id(run.blocks): run.blocks for run in runs}
    whole = {key: dict(blocks._modules) for key, blocks in lists.items()}
    dropped: dict[int, set[int]] = {key: set() for key in lists}
    for run in runs:
        kept = KEPT + (run is longer)
        dropped[id(run.blocks)] |= set(range(run.start + kept, run.start + run.count))
    try:
        for key, blocks in lists.items():
            left = [block for index, block in enumerate(whole[key].values()) if index not in dropped[key]]
            blocks._modules = {str(index): block for index, block in enumerate(left)}
        yield
    finally:
        for key, blocks in lists.items():
            blocks._modules = whole[key]
