"""Collections: what becomes of a paper's claims, by the verdicts of studies alone."""

from __future__ import annotations

from typing import Any

import pytest

from renaissance.errors import SpecError, StudyError
from renaissance.studies.claims import Collection, judge, validate_collection


def collection(by: list[str], needs: str = "all", **changes: Any) -> Collection:
    claim = {"number": 1, "claim": "Freezing costs nothing.", "by": by, "needs": needs}
    studies = sorted({place.split("/")[0] for place in by})
    return validate_collection({"name": "paper", "about": "A paper.", "claims": [claim], "studies": studies, **changes})


def results(*verdicts: str, confirmatory: bool = True, n: int = 8) -> dict[str, Any]:
    """Return the results of a study with the hypotheses a, b, ... that have these verdicts."""
    named = zip("abcdef", verdicts, strict=False)
    stated = [
        {"name": name, "verdict": verdict, "confirmatory": confirmatory, "n": n, "reason": f"Why {name}."}
        for name, verdict in named
    ]
    return {"hypotheses": stated}


@pytest.mark.parametrize(
    ("verdicts", "needs", "expected"),
    [
        (["supported", "supported"], "all", "supported"),
        (["supported", "undecided"], "all", "undecided"),
        (["supported", "undecided"], "any", "supported"),
        (["supported", "refuted"], "all", "refuted"),
        (["supported", "refuted"], "any", "refuted"),
        (["undecided", "undecided"], "any", "undecided"),
        (["supported", "void"], "all", "undecided"),
        (["void", "void"], "any", "undecided"),
    ],
)
def test_a_claim_stands_and_falls_with_its_hypotheses(verdicts: list[str], needs: str, expected: str) -> None:
    (told,) = judge(collection(["freezing/a", "freezing/b"], needs), {"freezing": results(*verdicts)})
    assert told["verdict"] == expected
    assert told["by"] == ["freezing/a", "freezing/b"]


def test_a_claim_without_results_is_not_tested_here() -> None:
    (told,) = judge(collection(["scale/a"]), {})
    assert (told["verdict"], told["reason"]) == ("not tested here", "'scale' has no results here.")


def test_a_hypothesis_without_seeds_tests_nothing() -> None:
    (told,) = judge(collection(["scale/a"]), {"scale": results("undecided", n=0)})
    assert told["verdict"] == "not tested here"
    assert told["reason"] == "'scale/a' is not tested: why a."


def test_a_claim_of_which_a_study_is_still_to_come_is_undecided() -> None:
    (told,) = judge(collection(["freezing/a", "scale/a"]), {"freezing": results("supported")})
    assert (told["verdict"], told["reason"]) == ("undecided", "'scale' has no results here.")


def test_a_void_hypothesis_leaves_a_claim_undecided_with_its_reason() -> None:
    (told,) = judge(collection(["freezing/a"]), {"freezing": results("void")})
    assert (told["verdict"], told["reason"]) == ("undecided", "'freezing/a' is void: why a.")


@pytest.mark.parametrize("verdict", ["supported", "refuted"])
def test_a_claim_that_exploratory_hypotheses_decide_says_so(verdict: str) -> None:
    (told,) = judge(collection(["freezing/a"]), {"freezing": results(verdict, confirmatory=False)})
    assert told["reason"].endswith("The claim is decided by exploratory hypotheses alone.")
    assert not told["confirmatory"]
    (told,) = judge(collection(["freezing/a"]), {"freezing": results(verdict)})
    assert "exploratory" not in told["reason"]
    assert told["confirmatory"]


def test_a_hypothesis_that_a_study_has_not_is_an_error() -> None:
    with pytest.raises(StudyError, match="by 'freezing/c', and the results of 'freezing' have no such hypothesis"):
        judge(collection(["freezing/c"]), {"freezing": results("supported", "supported")})


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"studies": ["frezing"]}, "claim 1 names the study 'freezing', which 'studies' does not"),
        ({"claims": [], "studies": []}, "studies"),
        ({"paper": "x"}, "paper"),
        ({"studies": ["freezing", "freezing"]}, "studies: 'freezing' stands twice"),
        ({"claims": [{"number": 1, "claim": "A.", "by": ["freezing"]}]}, "claims"),
        ({"claims": [{"number": 1, "claim": "A.", "by": ["freezing/a", "freezing/a"]}]}, "'freezing/a' stands twice"),
        ({"claims": [{"number": 1, "claim": "A.", "by": ["freezing/a"]}] * 2}, "two claims have the number 1"),
        ({"claims": [{"number": 1, "claim": "A.", "by": ["freezing/a"], "needs": "most"}]}, "needs"),
    ],
)
def test_a_collection_that_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        collection(["freezing/a"], **changes)


def test_a_collection_may_tell_of_studies_without_a_claim() -> None:
    told = validate_collection({"name": "beyond", "about": "Open questions.", "studies": ["scale"]})
    assert judge(told, {"scale": results("supported")}) == []
