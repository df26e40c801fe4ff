"""How many bytes of images are read while a batch is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Read:
    """Bytes that were read."""

    count: int = 0


_counts: ContextVar[Read | None] = ContextVar("bytes of images", default=None)


@contextmanager
def counted() -> Iterator[Read]:
    """Count the bytes of the images that are read inside."""
    read = Read()
    token = _counts.set(read)
    try:
        yield read
    finally:
        _counts.reset(token)


def read_image(source: Any) -> bytes:
    """Return the bytes of an image, and count them where somebody does."""
    data: bytes = source.read()
    if (read := _counts.get()) is not None:
        read.count += len(data)
    return data
