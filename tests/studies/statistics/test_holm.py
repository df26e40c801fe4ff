"""Holm's correction, by hand."""

from __future__ import annotations

import json

import pytest

from renaissance.errors import StudyError
from renaissance.studies.statistics.holm import holm


def test_corrected_values_are_those_worked_out_by_hand() -> None:
    found = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.005})
    assert found.adjusted == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06, "d": 0.02})
    assert found.stands == {"a": False, "b": True, "c": False, "d": True}


def test_one_hypothesis_needs_no_correction() -> None:
    assert holm({"only": 0.05}).adjusted == {"only": 0.05}
    assert holm({"only": 0.05}).stands == {"only": True}


def test_a_hypothesis_does_not_stand_behind_one_that_fell() -> None:
    assert holm({"a": 0.026, "b": 0.03}).stands == {"a": False, "b": False}  # 0.03 alone would pass


def test_the_order_of_hypotheses_changes_nothing() -> None:
    p_values = {"a": 0.02, "b": 0.02, "c": 0.9, "d": 0.001, "e": 0.0125}
    plain, turned = holm(p_values), holm(dict(reversed(p_values.items())))
    assert turned.stands == plain.stands
    assert turned.adjusted == pytest.approx(plain.adjusted)
    assert list(plain.stands) == list(p_values)


def test_facts_are_json() -> None:
    facts = holm({"a": 0.01}).facts()
    assert json.loads(json.dumps(facts)) == {"adjusted": {"a": 0.01}, "stands": {"a": True}, "alpha": 0.05}


def test_what_is_no_p_value_is_refused() -> None:
    with pytest.raises(StudyError, match="There is no hypothesis"):
        holm({})
    for p in (float("nan"), -0.1, 1.1):
        with pytest.raises(StudyError, match="The p value of 'a' is"):
            holm({"a": p})
    with pytest.raises(StudyError, match="The level of the family is 5"):
        holm({"a": 0.1}, alpha=5)
