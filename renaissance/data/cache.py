"""Where files that can be made again are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return where generated data and stored features are kept: RENAISSANCE_CACHE, or ~/.cache/renaissance."""
    return Path(os.environ.get("RENAISSANCE_CACHE") or Path.home() / ".cache" / "renaissance")
