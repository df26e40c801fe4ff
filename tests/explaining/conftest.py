"""A tiny model to explain, and pairs of the world."""

from __future__ import annotations

import pytest

from renaissance.assemble import Assembly
from renaissance.explaining.outputs import plain_copy
from renaissance.explaining.pairs import Pair, world_pairs
from renaissance.pretrained import Model
from tests.explaining.models import LINES, made


@pytest.fixture(scope="session")
def model() -> Model:
    return made(LINES["lxmert"])


@pytest.fixture(scope="session")
def own(model: Model) -> Assembly:
    return plain_copy(model.assembly)


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    return world_pairs(24, 0)
