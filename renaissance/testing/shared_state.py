"""What all parts of a process share, and no component may change. Imports no torch."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Looks = Mapping[str, Callable[[], Any]]

SHARED: Looks = {
    "os.environ": lambda: dict(os.environ),
    "the working folder": os.getcwd,
    "sys.path": lambda: list(sys.path),
    "the warnings filters": lambda: list(warnings.filters),
    "the root logger": lambda: (logging.getLogger().level, list(logging.getLogger().handlers)),
    "the random state of Python": random.getstate,
    "the random state of NumPy": lambda: repr(np.random.get_state(legacy=False)),
}


def seen(looks: Looks) -> dict[str, Any]:
    """Return what is shared now, by name."""
    return {name: look() for name, look in looks.items()}


def changed(before: Mapping[str, Any], looks: Looks) -> list[str]:
    """Return the names of what is no longer as it was."""
    return [name for name, look in looks.items() if look() != before[name]]
