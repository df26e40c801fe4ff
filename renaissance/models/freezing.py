"""Frozen means frozen: no weight gradient, eval mode that `train()` cannot undo, nothing in the optimiser.

A frozen prefix (a whole tower, or its embeddings and first blocks) builds no autograd graph either: nothing upstream
of it asks for a gradient, so PyTorch records none.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from renaissance.errors import SpecError
from renaissance.spec import Part


def freeze(encoder: nn.Module, parts: Iterable[Part], *, train_mode: bool = False) -> None:
    """Freeze the parts of an encoder for good; with the fault `train_mode` they keep their dropout in training.

    Raises:
        SpecError: a part has fewer layers than are to be frozen, or does not list them.
    """
    for part in parts:
        for module in _modules(encoder, part):
            if train_mode:
                module.requires_grad_(False)
            else:
                hold_still(module)


def hold_still(module: nn.Module) -> None:
    """Freeze one module: parameters without gradient, and eval mode for good."""
    module.requires_grad_(False)
    _stay_in_eval(module)


def hold_statistics(tower: nn.Module) -> None:
    """Keep the batch statistics of a pretrained tower as they are, in training too; its weights still train."""
    for module in tower.modules():
        if isinstance(module, _BatchNorm):
            _keep_eval(module)


def _modules(encoder: nn.Module, part: Part) -> list[nn.Module]:
    tower: Any = getattr(encoder, part.name)
    if part.group is None and part.layers is None:
        return [tower]
    if not len(tower.blocks):
        raise SpecError(f"The {part.name} tower does not list its layers; write 'frozen {part.name}'.")
    return [*tower.embeddings, *list(tower.blocks)[: _held_layers(part, len(tower.blocks))]]


def _held_layers(part: Part, depth: int) -> int:
    """Return how many first layers of a tower of `depth` layers hold still."""
    if part.layers is None:
        return 0
    stop = depth if part.layers.stop is None else part.layers.stop
    count = stop + depth if stop < 0 else stop
    if not 0 < count <= depth:
        fault = "holds none of them" if -depth <= stop <= 0 else "reaches beyond them"
        raise SpecError(f"The {part.name} tower has {depth} layers; 'frozen {part}' {fault}.")
    return count


def _stay_in_eval(module: nn.Module) -> None:
    module.eval()
    for part in module.modules():
        _keep_eval(part)


def _keep_eval(module: nn.Module) -> None:
    """Shadow `train` on this one module: a parent's `train()` asks each child's, and this one stays as it is."""
    module.eval()
    module.train = partial(_unmoved, module)  # type: ignore[method-assign]  # survives deepcopy and pickling


def _unmoved(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
