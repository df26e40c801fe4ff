"""Keep off the terminal what libraries warn of and a user of the command line can do nothing about."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# logger: what it tells that is expected here
_LOGGERS = (
    "transformers",  # weights that a tower leaves out or draws anew: our own loading checks them by name
    "timm",  # the same
    "huggingface_hub",  # requests without a token
    "accelerate",  # mixed precision that falls back on a CPU: recipes say what they want
    "torch.distributed",  # redirects are not supported on this system
)
# the first words of a warning: why it does not matter
_WARNINGS = (
    r"'pin_memory' argument is set as true",  # no accelerator: nothing to pin
    r"Grad strides do not match bucket view strides",  # speed of DDP alone
    r"The given NumPy array is not writable",  # memory-mapped features are read only
)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the named loggers and warnings while a command works; errors still come through."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with warnings.catch_warnings():
        for message in _WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
