"""What is read ahead comes in order, and a reading that hangs keeps nobody who has no more use for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from renaissance.data import ahead as reading
from renaissance.data.ahead import ahead
from renaissance.errors import DataError


def test_values_come_in_their_order_and_an_error_of_the_users_in_its_place() -> None:
    def values() -> Iterator[int]:
        yield from range(5)
        raise DataError("no more")

    made = list(ahead(values()))
    assert made[:5] == list(range(5))
    assert isinstance(made[5], DataError)


def test_a_reading_that_hangs_does_not_keep_what_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LEAVE", 0.01)
    begun, answered = threading.Event(), threading.Event()

    def values() -> Iterator[int]:
        yield 1
        begun.set()
        answered.wait(300.0)

    made = ahead(values())
    try:
        assert next(made) == 1
        assert begun.wait(300.0)
        closing = threading.Thread(target=made.close)
        closing.start()
        closing.join(300.0)
        assert not closing.is_alive()
        assert not answered.is_set()
    finally:
        answered.set()
