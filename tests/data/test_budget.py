from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renaissance.data.budget import check_budget, room
from renaissance.errors import DataError


@given(st.integers(0, 10**7), st.integers(0, 1000))
def test_room_is_the_whole_part_of_the_share(of: int, thousandths: int) -> None:
    assert room(of, thousandths / 1000) == Fraction(thousandths, 1000) * of // 1


def test_fewer_than_a_thousand_samples_have_no_room_by_default() -> None:
    assert (room(999), room(1000), room(1999), room(2000)) == (0, 1, 1, 2)


def test_what_the_budget_allows_is_left_out_and_one_more_is_an_error() -> None:
    words: Mapping[str, str] = {"what": "samples to train on", "first": "row 7: it is empty."}
    check_budget(20, 200, 0.1, **words)
    with pytest.raises(DataError) as caught:
        check_budget(21, 200, 0.1, **words)
    assert str(caught.value) == (
        "21 of 200 samples to train on cannot be used, and skip_budget 0.1 allows 20. One of them: row 7: it is empty. "
        "Mend or remove them, or raise skip_budget."
    )
