"""The figures of `ledger`: each row in a unit that shows all of them."""

from __future__ import annotations

from renaissance.cli.ledgers import _byte, _flop


def test_a_row_has_the_unit_of_its_smallest_figure() -> None:
    assert _flop([9000, 2_500_000]) == ["9.000 k", "2,500.000 k"]
    assert _flop([None, 0, 3e9]) == ["", "0.000 G", "3.000 G"]
    assert _flop([850]) == ["850"]
    assert _byte([12_900]) == ["12.9 kB"]
    assert _byte([0]) == ["0 B"]
    assert _byte([4_200_000, None]) == ["4.2 MB", ""]
