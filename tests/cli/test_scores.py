from __future__ import annotations

from typing import Any

import pytest

from renaissance.cli.scores import print_run_scores, print_scores


def score(model: str, task: str, name: str, value: float, ties: float = 0.0) -> dict[str, Any]:
    return {
        "model": model,
        "split": "test",
        "task": task,
        "name": name,
        "value": value,
        "low": 1.0,
        "high": 9.0,
        "chance": 2.0,
        "ties": ties,
        "n": 20,
    }


def shown(capsys: pytest.CaptureFixture[str], results: dict[str, Any], *, verbose: bool = False) -> list[list[str]]:
    print_run_scores(results, verbose=verbose)
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_a_bridge_has_a_column_where_it_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [score("trained", "retrieval", "R@1", 5.0), score("bridge", "retrieval", "R@1", 4.0)]
    lines = shown(capsys, {"scores": rows, "primary": None})
    assert lines[0] == ["split", "task", "score", "chance", "bridge", "trained", "[95%]"]
    assert lines[2] == ["test", "retrieval", "R@1", "2.0", "4.0", "5.0", "[1.0,", "9.0]"]


def test_one_direction_is_shown_when_asked_for_or_primary(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [score("trained", "retrieval", name, 5.0) for name in ("text R@1", "reranked image R@1", "R@1")]
    assert len(shown(capsys, {"scores": rows, "primary": None})) == 3
    assert len(shown(capsys, {"scores": rows, "primary": None}, verbose=True)) == 5
    marked = shown(capsys, {"scores": rows, "primary": "test/retrieval/text R@1"})
    assert marked[2][2:5] == ["text", "R@1", "(primary)"]


@pytest.mark.parametrize(("ties", "warned"), [(0.0, False), (0.1, False), (0.11, True)])
def test_ties_above_a_tenth_of_a_percent_are_warned_of(
    capsys: pytest.CaptureFixture[str], ties: float, warned: bool
) -> None:
    rows = [score("trained", "retrieval", "text R@1", 5.0, ties), score("untrained", "retrieval", "R@1", 5.0, 50.0)]
    for show in (lambda: print_scores(rows[:1], verbose=False), lambda: shown_run(rows)):
        show()
        told = capsys.readouterr().err
        assert told.startswith("Warning: 0.11% of the decisions of test/retrieval/text R@1 tied. Ties count") == warned
        assert bool(told) == warned


def shown_run(rows: list[dict[str, Any]]) -> None:
    print_run_scores({"scores": rows, "primary": None}, verbose=False)


def test_of_several_scores_with_ties_the_worst_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**score("", "aro", name, 5.0, ties), "data": "world"} for name, ties in (("order", 0.2), ("macro", 7.0))]
    print_scores(rows, verbose=False)
    told = capsys.readouterr().err
    assert "7.00% of the decisions of world/test/aro/macro tied, and more than 0.1% in 2 scores." in told
