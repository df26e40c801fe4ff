"""Parts of error messages."""

from __future__ import annotations

import pytest

from renaissance.toolkit.messages import either, first_line


@pytest.mark.parametrize(("error", "line"), [(ValueError("\n  no\nyes"), "no"), (KeyError(), "KeyError")])
def test_the_first_line_that_says_something_is_told(error: Exception, line: str) -> None:
    assert first_line(error) == line


def test_names_are_told_as_alternatives() -> None:
    assert either(["a", "b"]) == "'a' or 'b'"
