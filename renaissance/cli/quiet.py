"""Keep off the terminal what libraries tell and a user of the command line can do nothing about."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

# logger: what it tells that is expected here
LOGGERS = (
    "transformers",  # weights that a tower leaves out or draws anew: our own loading checks them by name
    "timm",  # the same
    "huggingface_hub",  # requests without a token, slower downloads
    "accelerate",  # mixed precision that falls back on a CPU: recipes say what they want
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the named loggers while a command works; what is an error for them still comes through."""
    # under torchrun every process would tell that some parameters may be unused in a step; it is read at torch's import
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
