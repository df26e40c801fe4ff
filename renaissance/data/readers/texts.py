"""Texts of published files, as they are taken in."""

from __future__ import annotations

from collections.abc import Iterable

from renaissance.data.captions import clean_caption
from renaissance.data.layouts import Problems


def clean_texts(texts: Iterable[object], row: str, problems: Problems) -> tuple[str, ...]:
    """Return the captions among these values; each other one is told of, with its row.

    Raises:
        SampleError: one is no caption, and bad samples are errors.
    """
    found = []
    for text in texts:
        try:
            found.append(clean_caption(text))
        except ValueError as error:
            problems.report(row, str(error))
    return tuple(found)
