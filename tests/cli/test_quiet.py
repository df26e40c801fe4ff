from __future__ import annotations

import logging

import pytest

from renaissance.cli.quiet import LOGGERS, quiet


@pytest.mark.parametrize("name", LOGGERS)
def test_a_named_library_warns_of_nothing_inside_and_as_before_outside(name: str) -> None:
    logger = logging.getLogger(name)
    before = logger.level
    with quiet():
        assert not logger.isEnabledFor(logging.WARNING)
        assert logger.isEnabledFor(logging.ERROR)
    assert logger.level == before
