"""A study's folder with a report, and explanations beside it."""

from __future__ import annotations

import pytest

from renaissance.report import Written, write
from tests.report import cases


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write(cases.explained(tmp_path_factory.mktemp("reported") / "study"))
