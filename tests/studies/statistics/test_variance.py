"""Variance components: the mean squares of statsmodels, planted spreads, and forecasts of the variance of a score."""

from __future__ import annotations

import json
import re
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from renaissance.errors import StudyError
from renaissance.studies.statistics.variance import split_variance

SOURCES = ("pretraining seed", "fine-tuning seed", "item", "seed x item", "residual")


def drawn(
    generator: np.random.Generator, shape: tuple[int, int, int], sds: tuple[float, ...] = (3, 2, 4, 1, 1.5)
) -> np.ndarray[Any, Any]:
    seeds, fine, items = shape
    shapes = ((seeds, 1, 1), (seeds, fine, 1), (1, 1, items), (seeds, 1, items), shape)
    total: np.ndarray[Any, Any] = sum(
        (sd * generator.normal(size=of) for sd, of in zip(sds, shapes, strict=True)), np.zeros(shape)
    )
    return total


def mean_squares(outcomes: np.ndarray[Any, Any], formula: str) -> dict[str, float]:
    rows = [(*index, outcomes[index]) for index in product(*map(range, outcomes.shape))]
    frame = pd.DataFrame(rows, columns=["p", "f", "u", "y"])
    anova = anova_lm(ols(formula, frame).fit())
    return {source: row["mean_sq"] for source, row in anova.iterrows()}


def test_components_solve_the_mean_squares_of_statsmodels() -> None:
    outcomes = drawn(np.random.default_rng(0), (4, 3, 5))
    found = mean_squares(outcomes, "y ~ C(p) + C(p):C(f) + C(u) + C(p):C(u)")
    run, crossed, rest = found["C(p):C(f)"], found["C(p):C(u)"], found["Residual"]
    expected = {
        "pretraining seed": (found["C(p)"] - run - crossed + rest) / 15,
        "fine-tuning seed": (run - rest) / 5,
        "item": (found["C(u)"] - crossed) / 12,
        "seed x item": (crossed - rest) / 3,
        "residual": rest,
    }
    assert split_variance(outcomes).components == pytest.approx({k: max(0, v) for k, v in expected.items()})


def test_with_one_fine_tuning_seed_they_solve_those_of_two_factors() -> None:
    outcomes = drawn(np.random.default_rng(1), (4, 1, 6))
    found = mean_squares(outcomes, "y ~ C(p) + C(u)")
    split = split_variance(outcomes)
    assert split.components == pytest.approx(
        {
            "pretraining seed": (found["C(p)"] - found["Residual"]) / 6,
            "item": (found["C(u)"] - found["Residual"]) / 4,
            "seed x item": found["Residual"],
        }
    )
    assert "One fine-tuning seed" in split.notes[0]


def test_planted_spreads_are_found() -> None:
    split = split_variance(drawn(np.random.default_rng(2), (200, 4, 200)))
    expected = dict(zip(SOURCES, (9, 4, 16, 1, 2.25), strict=True))
    assert split.components == pytest.approx(expected, rel=0.3)
    assert split.components["residual"] == pytest.approx(2.25, rel=0.02)
    assert sum(split.shares.values()) == pytest.approx(1)
    assert split.notes == ()


def test_hard_items_do_not_hide_the_spread_of_seeds() -> None:
    generator = np.random.default_rng(3)
    easy = drawn(generator, (5, 3, 40), (0.3, 0.2, 0, 0, 1))
    hard = easy + 50 * generator.normal(size=40)
    for source in ("pretraining seed", "fine-tuning seed", "residual"):
        assert split_variance(hard).components[source] == pytest.approx(split_variance(easy).components[source])


def test_an_estimate_below_0_is_reported_as_0_with_a_note() -> None:
    outcomes = np.array([[[1.0, 2.0], [3.0, 4.0]], [[3.0, 4.0], [1.0, 2.0]]])  # seeds agree, runs within do not
    split = split_variance(outcomes)
    assert split.components["pretraining seed"] == 0
    assert split.components["fine-tuning seed"] == 2
    assert split.notes == ("The estimate for pretraining seed was -1; it is reported as 0.",)


def test_the_variance_of_the_mean_follows_from_the_numbers_of_each() -> None:
    split = split_variance(drawn(np.random.default_rng(4), (4, 3, 50)))
    of = split.components
    forecast = split.of_mean(seeds=10, fine=2, items=1000)
    assert forecast == pytest.approx(
        {
            "pretraining seed": of["pretraining seed"] / 10,
            "fine-tuning seed": of["fine-tuning seed"] / 20,
            "item": of["item"] / 1000,
            "seed x item": of["seed x item"] / 10_000,
            "residual": of["residual"] / 20_000,
        }
    )


def test_the_forecast_is_the_variance_of_drawn_means() -> None:
    generator = np.random.default_rng(5)
    split = split_variance(drawn(generator, (100, 3, 100)))
    means = [drawn(generator, (3, 2, 8)).mean() for _ in range(2000)]
    assert sum(split.of_mean(seeds=3, fine=2, items=8).values()) == pytest.approx(np.var(means), rel=0.3)


def test_outcomes_that_never_vary_have_no_shares() -> None:
    split = split_variance(np.ones((2, 2, 3)))
    assert set(split.components.values()) == set(split.shares.values()) == {0.0}


def test_facts_are_json() -> None:
    facts = split_variance(drawn(np.random.default_rng(6), (3, 2, 4))).facts()
    assert tuple(json.loads(json.dumps(facts))["shares"]) == SOURCES


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(StudyError, match="The outcomes are of one item"):
        split_variance(np.zeros((2, 2, 1)))
    with pytest.raises(StudyError, match="has one pretraining seed"):
        split_variance(np.zeros((1, 2, 3)))
    with pytest.raises(StudyError, match=re.escape("has shape [2, 2]: it must be [pretraining seeds, fine-tuning")):
        split_variance(np.zeros((2, 2)))
    one = split_variance(np.random.default_rng(0).normal(size=(3, 1, 4)))
    with pytest.raises(StudyError, match="What 2 fine-tuning seeds would change is not known"):
        one.of_mean(seeds=3, fine=2, items=4)
    with pytest.raises(StudyError, match="A design of 0 x 1 x 4 has no outcome"):
        one.of_mean(seeds=0, fine=1, items=4)
