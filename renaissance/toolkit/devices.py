"""Where tensors are."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")


def moved(value: Value, device: torch.device) -> Value:
    """Return a batch, or any dataclass, mapping or tuple of tensors, with all its tensors on a device."""
    found: Any = value
    if isinstance(value, Tensor):
        found = value.to(device, non_blocking=True)
    elif is_dataclass(value) and not isinstance(value, type):
        found = replace(value, **{field.name: moved(getattr(value, field.name), device) for field in fields(value)})
    elif isinstance(value, dict):
        found = {key: moved(item, device) for key, item in value.items()}
    elif isinstance(value, tuple) and any(isinstance(item, Tensor) for item in value):
        found = tuple(moved(item, device) for item in value)
    return found  # type: ignore[no-any-return]  # the same type as `value`
