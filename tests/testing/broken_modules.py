"""Faults that any module can have; each takes a sound module and spoils it."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import nn


def _fixed_seed(module: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)


def _calls_home(module: Any) -> None:
    with suppress(OSError):
        socket.create_connection(("models.example.org", 443), timeout=1)


def _seeds_python(module: Any) -> None:
    random.seed(0)


def _copies_itself(module: Any) -> None:
    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), {"__deepcopy__": lambda self, memo: self})


def _counts_calls(module: Any) -> None:
    def count(changed: Any, given: Any) -> None:  # a hook that gave something back would change what is given
        changed.calls.add_(1)

    module.register_buffer("calls", torch.zeros(1))
    module.register_forward_pre_hook(count)


FAULTS: dict[str, Callable[[Any], None]] = {
    "seeded": _fixed_seed,
    "network": _calls_home,
    "state": _seeds_python,
    "deepcopy": _copies_itself,
    "frozen": _counts_calls,
}


def leftover(module: nn.Module) -> None:
    """Add a parameter that the outputs do not depend on."""
    module.leftover = nn.Parameter(torch.zeros(1))
