"""A round trip of published layouts through prepared data."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from renaissance.data.prepare import prepare
from renaissance.data.prepared import Prepared
from renaissance.recipe.values import OnBadSample


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., Prepared]:
    """Prepare a corpus of a layout, and open what was written."""
    numbers = count()

    def run(layout: str, root: Path, on_bad_sample: OnBadSample = "error") -> Prepared:
        out = tmp_path / f"prepared-{next(numbers)}"
        prepare(layout, root, out, on_bad_sample=on_bad_sample, skip_budget=1.0)
        return Prepared(out)

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    return folder
