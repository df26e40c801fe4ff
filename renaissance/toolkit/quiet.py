"""Keep what `transformers` and `huggingface_hub` would print off the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as library_logging


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the bars and the log of transformers and huggingface_hub; ours are shown in their place."""
    bars, hidden = library_logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    level = library_logging.get_verbosity()
    library_logging.set_verbosity(logging.CRITICAL)
    library_logging.disable_progress_bar()
    disable_progress_bars()
    try:
        yield
    finally:
        library_logging.set_verbosity(level)
        if bars:
            library_logging.enable_progress_bar()
        if not hidden:
            enable_progress_bars()
