"""Trading time for memory: layers whose activations are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import torch
from torch.autograd.profiler import record_function
from torch.utils.checkpoint import checkpoint

Inputs = TypeVarTuple("Inputs")
Result = TypeVar("Result")
# how a profile, and the ledger, call what runs again in the backward pass
RECOMPUTED = "run again in backward"


def run(layer: Callable[[*Inputs], Result], recompute: bool, *inputs: *Inputs) -> Result:
    """Return layer(*inputs); with `recompute` only its inputs are kept for the backward pass.

    Gradients are the same, dropout included: its random numbers are drawn again from the same state.
    """
    if recompute and torch.is_grad_enabled():
        with record_function(RECOMPUTED):
            return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
