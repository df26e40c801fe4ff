"""Files of the Hub, read in part as `huggingface_hub` does; what the network does is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from renaissance.errors import HubError

Value = TypeVar("Value")

HUB = "hf://"
ATTEMPTS = 4


def network_faults() -> tuple[type[Exception], ...]:
    """Return what the client of the Hub raises where it gets no answer, or not all of it."""
    import httpx2

    return (OSError, httpx2.HTTPError)


def hub() -> Any:
    """Return the file system of the Hub."""
    from huggingface_hub import HfFileSystem

    return HfFileSystem()


def patiently(url: str, read: Callable[[], Value], *, also: tuple[type[Exception], ...] = ()) -> Value:
    """Return what `read` does of a file, asking again after a while where the network fails.

    also: what `read` raises besides where it did not get all of an answer.

    Raises:
        HubError: there is no such file, or the network failed each time.
    """
    for attempt in range(ATTEMPTS):
        try:
            return read()
        except (*network_faults(), *also) as error:
            if attempt + 1 == ATTEMPTS or isinstance(error, FileNotFoundError):
                fault = " ".join(str(error).split())
                raise HubError(f"'{url}' cannot be fetched ({fault}). Look at the network, then --resume.") from None
            time.sleep(2.0**attempt)
    raise AssertionError("each attempt returns or raises")
