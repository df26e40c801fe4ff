"""A sample of `make power`: rates on planted effects lie where theory puts them, and a rate that does not is told."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scipy import stats

FOLDER = Path(__file__).parents[3] / "benchmarks"
REPETITIONS, SLOW = 400, 100
# A correct rate falls outside of these quantiles once in 50,000; seeds are fixed, so it always does or never.
TAIL = 1e-5


@pytest.fixture(scope="module")
def benchmark() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("study_power")


@pytest.fixture(scope="module")
def rates(benchmark: ModuleType) -> Any:
    return benchmark.all_rates(REPETITIONS, SLOW, (3, 10))


@pytest.mark.parametrize("part", ["false positives", "power", "coverage"])
def test_rates_lie_where_theory_puts_them(rates: Any, part: str) -> None:
    tested = [rate for rate in rates[part] if rate.theory is not None and rate.theory.bound != "about"]
    assert tested
    for rate in tested:
        low, high = stats.binom.ppf([TAIL, 1 - TAIL], rate.of, rate.theory.rate)
        assert rate.hits <= high, f"{rate.name} at {rate.seeds} seeds: {rate}, theory {rate.theory}"
        assert rate.theory.bound == "at most" or rate.hits >= low, f"{rate.name} at {rate.seeds} seeds: {rate}"


def test_the_bootstrap_is_too_narrow_with_three_seeds(rates: Any) -> None:
    rate = next(rate for rate in rates["coverage"] if rate.seeds == 3 and "seeds matter" in rate.name)
    assert rate.hits < stats.binom.ppf(TAIL, rate.of, 0.95)
    assert rate.hits > stats.binom.ppf(TAIL, rate.of, rate.theory.rate)


def test_a_test_with_another_level_than_it_says_is_told(benchmark: ModuleType) -> None:
    theory = benchmark.Theory(0.05)
    honest, lenient = benchmark.Rate("honest", 3, 21, 400, theory), benchmark.Rate("lenient", 3, 48, 400, theory)
    assert benchmark.outside([honest, lenient]) == [lenient]
    shy = benchmark.Rate("shy", 3, 0, 400, benchmark.Theory(0.05, "at most"))
    assert benchmark.outside([shy]) == []
    assert " outside" in benchmark.rate_table([honest, lenient], [lenient])


def test_the_page_is_the_one_that_the_program_writes(benchmark: ModuleType) -> None:
    page = benchmark.PAGE.read_text(encoding="utf-8")
    assert benchmark.table(["seeds", *benchmark.KINDS, "least p of sign flips"], list(benchmark.margin_rows())) in page
    for name in (*benchmark.FALSE_POSITIVES, *benchmark.POWERS, *benchmark.COVERAGE):
        assert f"| {name} " in page
