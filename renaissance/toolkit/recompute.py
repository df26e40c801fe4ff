"""Trading time for memory: layers whose activations are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.autograd.profiler import record_function
from torch.utils.checkpoint import checkpoint

Inputs = TypeVarTuple("Inputs")
Result = TypeVar("Result")
# how a profile, and the ledger, call what runs again in the backward pass
RECOMPUTED = "run again in backward"
_running_again: ContextVar[bool] = ContextVar("running_again", default=False)


def run(layer: Callable[[*Inputs], Result], recompute: bool, *inputs: *Inputs) -> Result:
    """Return layer(*inputs); with `recompute` only its inputs are kept for the backward pass.

    Gradients are the same, dropout included: its random numbers are drawn again from the same state.
    """
    if recompute and torch.is_grad_enabled():
        with record_function(RECOMPUTED):
            return checkpoint(partial(_run_again, layer), *inputs, use_reentrant=False)
    return layer(*inputs)


def _run_again(layer: Callable[[*Inputs], Result], *inputs: *Inputs) -> Result:
    token = _running_again.set(True)
    try:
        return layer(*inputs)
    finally:
        _running_again.reset(token)


def not_keeping_between(
    first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], values: Tensor
) -> Tensor:
    """Return second(first(values)); what is between them is not kept for the backward pass, but computed again.

    first: cheap, without random numbers, and such that its own backward keeps `values`. Gradients stay the same, bit
    for bit. Inside of what `run` runs again nothing is kept anyway, and it is as if called one after the other.
    """
    between = first(values)
    if not between.requires_grad or _running_again.get():
        return second(between)
    kept, place = values.detach(), between.untyped_storage()._cdata

    def pack(saved: Tensor) -> Any:
        same = saved.untyped_storage()._cdata == place
        return (saved.shape, saved.stride(), saved.storage_offset()) if same else saved

    def unpack(packed: Any) -> Tensor:
        return first(kept).as_strided(*packed) if isinstance(packed, tuple) else packed

    with saved_tensors_hooks(pack, unpack):
        return second(between)
