"""Parts of error messages: what a library said, and what may have been meant."""

from __future__ import annotations

from collections.abc import Iterable


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that says something; without one, the name of its class."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def either(names: Iterable[str]) -> str:
    """Return the names as alternatives: "'a' or 'b'"."""
    return " or ".join(repr(name) for name in names)
