"""Where the bytes of an image are: a file, or a cell of an Arrow file. Small, and safe to send to other processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from renaissance.errors import DataError, SampleError


@dataclass(frozen=True, slots=True)
class FileImage:
    """An image file."""

    path: str

    @property
    def name(self) -> str:
        """The path."""
        return self.path

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            SampleError: the file is missing or cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                return file.read()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SampleError(f"The image file '{self.path}' cannot be read ({reason}).") from None


@dataclass(frozen=True, slots=True)
class ArrowImage:
    """An encoded image in a cell of an Arrow stream file, which is mapped into memory and never read whole."""

    file: str
    column: str
    batch: int
    row: int
    name: str

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            SampleError: the file is gone, or the cell holds no image.
        """
        try:
            cell = arrow_batches(self.file)[self.batch].column(self.column)[self.row].as_py()
        except (DataError, LookupError) as error:
            raise SampleError(f"The image '{self.name}' cannot be read ({error}).") from None
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            raise SampleError(f"The image '{self.name}' is not there any more. Load the data again.")
        return data


@lru_cache(maxsize=64)
def arrow_batches(file: str) -> tuple[Any, ...]:
    """Return the record batches of an Arrow stream file, mapped into memory.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return tuple(pa.ipc.open_stream(pa.memory_map(file)))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"The Arrow file '{file}' cannot be read ({_line(error)}). Make the data set again.") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
