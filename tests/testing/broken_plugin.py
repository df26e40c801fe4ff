"""A plugin that imports torch to be listed, and seeds everything when its hook is called."""

from __future__ import annotations

import random

import numpy as np
import torch

from renaissance.api import FusionHeadEntry, hookimpl
from tests.testing.broken_heads import entry


@hookimpl
def register_fusion_heads() -> list[FusionHeadEntry]:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return [entry()]
