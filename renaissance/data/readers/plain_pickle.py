"""Reads pickles of plain containers. A pickle can name any function and have it called: here, none can be named."""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any

from renaissance.errors import DataError
from renaissance.spec import shown

MAX_BYTES = 2**28
_PLAIN = frozenset(
    (
        *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP"),
        *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    )
)
_STORES = ("PUT", "BINPUT", "LONG_BINPUT")


class _Plain(pickle.Unpickler):
    """Builds None, bools, numbers, text, lists, tuples and dicts, for which it needs no name."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {shown(module)}.{shown(name)}")


def read_plain_pickle(path: Path) -> Any:
    """Return what a pickle of plain containers holds; it is held in memory whole.

    Raises:
        DataError: the file cannot be read, is larger than 256 MiB, damaged, or asks for anything but plain containers.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"'{path}' is larger than {MAX_BYTES:,} bytes. Download it again.")
        _check_steps(path)
        with path.open("rb") as file:
            # pickles of Python 2 hold byte strings, which are text here
            return _Plain(file, encoding="utf-8").load()
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror or error}).") from None
    except pickle.UnpicklingError as error:
        raise DataError(f"'{path}' is not a pickle of plain containers: {error}. Download it again.") from None
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError, MemoryError) as error:
        fault = f"{type(error).__name__}: {shown(error)}"
        raise DataError(f"'{path}' is truncated or damaged ({fault}). Download it again.") from None


def _check_steps(path: Path) -> None:
    """Refuse a pickle with any other step than those that build plain containers, before one is taken.

    Raises:
        UnpicklingError: there is one, or one that stores where no step has been, for which all memory would be filled.
    """
    with path.open("rb") as file:
        for number, (step, argument, _) in enumerate(pickletools.genops(file)):
            if step.name not in _PLAIN:
                told = "" if argument is None else f" of {shown(argument)}"
                raise pickle.UnpicklingError(f"it has a step {step.name}{told}, which could run any program")
            if step.name in _STORES and (not isinstance(argument, int) or argument > number):
                raise pickle.UnpicklingError(f"its step {number} stores as number {argument}")
