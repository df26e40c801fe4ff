"""Large files of annotations, read a piece at a time: memory is that of one element, however large the file.

Bytes that are no UTF-8 become half surrogates: a text with one is no Unicode, and is refused with its row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from renaissance.errors import DataError

CHUNK = 2**20
MAX_ELEMENT = 2**24  # characters
_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"[-+0-9.eE]*")
_DECODER = json.JSONDecoder()


def json_items(path: Path, key: str | None = None) -> Iterator[Any]:
    """Yield the elements of the array that the file is; or of the one that is the value of `key` in its object.

    Raises:
        DataError: the file cannot be read, is no JSON, ends early, or has no such array.
    """
    with _opened(path) as file:
        parser = _Parser(file, path)
        if key is None:
            yield from parser.elements()
            return
        for name in parser.names():
            if name == key:
                yield from parser.elements()
                return
            parser.skip()
    raise DataError(f"'{path}' has no '{key}'. Download it again.")


def json_members(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of the object that the file is.

    Raises:
        DataError: the file cannot be read, is no JSON object, or ends early.
    """
    with _opened(path) as file:
        parser = _Parser(file, path)
        for name in parser.names():
            yield name, parser.value()


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the number of each line that is not empty, from 1, and the value on it; None where that is no JSON.

    Raises:
        DataError: the file cannot be read.
    """
    for number, line in text_lines(path):
        if line.strip():
            yield number, _value(line)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number of each line, from 1, and the line without its end.

    Raises:
        DataError: the file cannot be read, or a line is longer than any that is published.
    """
    with _opened(path) as file:
        number = 0
        while line := file.readline(MAX_ELEMENT):
            number += 1
            if len(line) == MAX_ELEMENT:
                raise DataError(f"'{path}', line {number}: longer than {MAX_ELEMENT:,} characters. Download it again.")
            yield number, line.rstrip("\r\n")


def _value(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    """Open a text file; that it cannot be read, then or later, is an error that names it."""
    try:
        # newline: a line ends at \n alone, as a published caption may hold other separators
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            yield file
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror or error}).") from None


class _Parser:
    """Reads JSON from a file in order: the standard decoder sees one element at a time."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at, self._ended = "", 0, False

    def elements(self) -> Iterator[Any]:
        """Yield the elements of the array that comes next."""
        self._expect("[")
        for _ in self._parts("]"):
            yield self.value()

    def names(self) -> Iterator[str]:
        """Yield the names in the object that comes next; the caller takes the value after each."""
        self._expect("{")
        for _ in self._parts("}"):
            name = self.value()
            if not isinstance(name, str):
                raise self._fault()
            self._expect(":")
            yield name

    def skip(self) -> None:
        """Pass over the value that comes next, an element at a time."""
        match self._peek():
            case "[":
                for _ in self.elements():
                    pass
            case "{":
                for _ in self.names():
                    self.skip()
            case _:
                self.value()

    def value(self) -> Any:
        """Return the value that comes next."""
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if isinstance(error, RecursionError) or not self._more():
                    raise self._fault() from None
                continue
            # a number that ends near where the text ends may go on ("0." is read as 0)
            number = _NUMBER.match(self._text, end)
            if number is None or number.end() < len(self._text) or not self._more():
                self._at = end
                return value

    def _parts(self, last: str) -> Iterator[None]:
        """Yield before each part of an array or object, up to its end; commas stand between them."""
        if self._peek() == last:
            self._at += 1
            return
        while True:
            yield
            if self._peek() == last:
                self._at += 1
                return
            self._expect(",")

    def _expect(self, mark: str) -> None:
        if self._peek() != mark:
            raise self._fault()
        self._at += 1

    def _peek(self) -> str:
        """Return the next character that is no white space, and go there; "" at the end of the file."""
        while True:
            space = _SPACE.match(self._text, self._at)
            assert space is not None
            self._at = space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read on; return whether there was more. What was read before is forgotten, up to where the parser is."""
        rest = self._text[self._at :]
        if self._ended or len(rest) > MAX_ELEMENT:
            return False
        # twice as much each time, so that a large element costs its length, not the square of it
        chunk = self._file.read(max(CHUNK, len(rest)))
        self._ended = not chunk
        self._text, self._at = rest + chunk, 0
        return bool(chunk)

    def _fault(self) -> DataError:
        near = ascii(self._text[self._at : self._at + 40])
        where = f"near {near}" if self._text[self._at :].strip() else "at its end"
        return DataError(f"'{self._path}' is truncated or damaged {where}: not the JSON expected. Download it again.")
