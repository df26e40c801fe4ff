"""The other processes of a run: what this one sees of one that ended, or that does not answer, becomes one typed error.

What the backends of torch raise then are errors of sockets, and most of them only their text tells from other ones.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from renaissance.errors import ProcessGroupError

# "[/source/gloo/transport/tcp/pair.cc:561] Connection closed by peer": with a space before the file it is one of
# gloo's checks of what it is called with, which only a bug of ours can break
_GLOO = re.compile(r"\[\S*gloo/\S+:\d+\] (?P<what>[^\n]+?)(?=\. |\.?\s*$)", re.M)
_NCCL = re.compile(r"(?P<what>[^\n.,:]*(?:remote process exited|[Tt]imeout|timed out)[^\n.]*)")
_SHOWN = 200  # characters of what the backend says


@contextmanager
def telling_of_others() -> Iterator[None]:
    """Raise a typed error for another process that is lost while what is inside works with it.

    Raises:
        ProcessGroupError: another process ended, or did not answer for as long as the recipe's distributed.timeout.
    """
    try:
        yield
    except RuntimeError as error:
        what = lost(error)
        if what is None:
            raise
        rank, size = os.environ.get("RANK", "?"), os.environ.get("WORLD_SIZE", "?")
        raise ProcessGroupError(
            f"Process {rank} of {size} (counted from 0) has lost another process of the run, which ended or stopped "
            f"answering ({what}). Look for the error of the one whose exit code is not "
            f"{ProcessGroupError.exit_code}; then --resume."
        ) from error


def lost(error: RuntimeError) -> str | None:
    """Return what a backend of torch says of another process that is lost; None where the error is not of that."""
    found = _GLOO.search(str(error))
    if found is None and isinstance(error, dist.DistBackendError):
        found = _NCCL.search(str(error))
    if found is not None:
        return found["what"].strip()[:_SHOWN]
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError):  # of what the processes meet at
        return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:_SHOWN]
    return None
