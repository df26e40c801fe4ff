"""False-positive rates, power and coverage of the statistics of studies, on planted effects, beside theory.

python benchmarks/study_power.py [--repetitions N] [--write]

Scores of nested designs are drawn: pretraining seeds, fine-tuning seeds in each, items. A null is true at the very edge
of its test, an effect is of the size that the planner says is found in 80% of studies. `--write` (`make power`) writes
docs/power.md. Fails where a rate lies outside what theory puts, corrected by Holm for all rates of the page.
"""

from __future__ import annotations

import argparse
import gc
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import scipy
import statsmodels
from numpy.random import Generator
from paired import table
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from renaissance.studies.statistics.arrays import Floats
from renaissance.studies.statistics.equivalence import noninferior, share_of_gain, superior, tost
from renaissance.studies.statistics.holm import holm
from renaissance.studies.statistics.paired import bootstrap, contrast, estimate, t_test
from renaissance.studies.statistics.permutation import EXACT_SEEDS, least_p, sign_flip
from renaissance.studies.statistics.power import Kind, margin_reached, power_of_tost, seeds_needed
from renaissance.studies.statistics.variance import split_variance

Bound = Literal["exact", "at most", "about"]

SEEDS = (3, 5, 10, 20)
ALPHA, POWER, SHARE, LEVEL = 0.05, 0.8, 0.2, 0.95
RANDOM_PATTERNS = 9999
# of one score: what all arms of a seed share, what an arm adds to it, and what a fine-tuning seed adds
SHARED, SEED, FINE, FINE_SEEDS = 2.0, 1.0, 0.7, 2
# of one outcome: how hard the item is, for all, for one seed of an arm, and (below) for one arm; and what is left
ITEM, SEED_ITEM, RESIDUAL, ITEMS = 2.0, 0.5, 1.0, 100
ITEM_ARM = {"seeds": 0.3, "items": 3.0}
RESAMPLES = 1000
# a gain that any test finds, so that the rate of the claim is the rate of its contrast
SURE_GAIN = 100.0
NOISY = {"no-vlp": 5.0}
# the chance of an arm at one seed to diverge, and the points that it loses then
DIVERGING, LOST = 0.1, 10.0
DIFFERENCE = {"frozen": 1.0, "unfrozen": -1.0}
KEEPS = {"frozen": 1.0, "unfrozen": SHARE - 1, "no-vlp": -SHARE}
KINDS: Mapping[str, Kind] = {"superiority": "superiority", "no loss": "no-loss", "equivalence": "equivalence"}
PAGE = Path(__file__).parents[1] / "docs" / "power.md"
TEXT = """# What the statistics of studies can show

How often does each test say what is not so, and how often does it find what is? Scores were drawn with effects that are
known, tested {repetitions:,} times for each number of pretraining seeds (intervals and variance: {slow:,} times), and
counted; in brackets the 95% Wilson interval of the rate.

{verdict}

`make power` measures all of it and writes this page (`python benchmarks/study_power.py --repetitions {repetitions}
--write`; seeds [table, P] of the default generator of NumPy {numpy}, with SciPy {scipy} and statsmodels {statsmodels}).
A sample of it runs in the tests.

Drawn is, for pretraining seed p, fine-tuning seed f (two in each) and arm a: the arm's mean, what all arms share at
seed p (standard deviation {shared}), what the arm adds at it ({seed}), and what f adds ({fine}), all normal. Tests are
one-sided at {alpha}, but for equivalence, which is two of them.

## Seeds and margins

The least margin (of no loss, of equivalence) or true difference (superiority) that is shown with a power of
{power:.0%}, in standard deviations of the paired difference over pretraining seeds; and the least p that a one-sided
sign-flip test can give.

{margins}

The seeds that a margin takes:

{needed}

At 10 seeds equivalence reaches {ten:.3f} standard deviations, so a margin of exactly 1 takes {exactly} seeds.

## False positives

The null is true, at its edge: what is tested for is just not so. Level {alpha}.

{false_positives}

Sign flips come in steps of 2^-P, so their level is below {alpha}; with 3 seeds they never find anything. "Share of a
gain" tests what a study states: a loss of less than {share:.0%} of unfrozen - no-vlp. With a noisy floor, `no-vlp`
scatters five times as much as the other arms. There the row "mean gain taken as known" shows why the margin is part of
the contrast: it tests frozen - unfrozen against {share:.0%} of the mean gain as if that were a number. It is not
offered. "Diverging runs": with each seed an arm has a chance of {diverging:.0%} to lose {lost:g} points. All scores are
then far from normal, and t finds too little rather than too much; were it one arm alone that diverges, its mean would
truly be lower.

## Power

The effect is the one that the planner says is found in {power:.0%} of studies.

{powers}

## Coverage of intervals of {level:.0%}

The t interval is about new seeds on the same items, the bootstrap about new seeds and new items. "Seeds matter": arms
differ little in which items are hard for them (standard deviation {little}). "Items matter": they differ much
({much}). {items} items, {resamples:,} resamples.

{coverage}

The bootstrap is too narrow with few seeds, as theory says of percentiles ("about": normal quantiles, and a variance of
which the pretraining seeds give (P - 1) / P of what they should, while fine-tuning seeds are counted twice in part).
Verdicts are therefore built on t tests, and the bootstrap stands beside.
Where items matter, the t interval is too narrow for claims about other items, the more so the more seeds there are: it
makes none.

## Variance components

Planted, and the mean of what was estimated with its standard error. Estimates below 0 are reported as 0, so small
components come out too large on average with few seeds.

{variance}
"""


@dataclass(frozen=True, slots=True)
class Theory:
    """What a rate should be."""

    rate: float
    bound: Bound = "exact"

    def __str__(self) -> str:
        return f"{'' if self.bound == 'exact' else f'{self.bound} '}{self.rate:.3f}"


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something was found in repeated studies of so many pretraining seeds."""

    name: str
    seeds: int
    hits: int
    of: int
    theory: Theory | None

    @property
    def p(self) -> float | None:
        """The p value of the theory; None: there is none, or it is an approximation."""
        if self.theory is None or self.theory.bound == "about":
            return None
        alternative = "two-sided" if self.theory.bound == "exact" else "greater"
        return float(stats.binomtest(self.hits, self.of, self.theory.rate, alternative=alternative).pvalue)

    def __str__(self) -> str:
        low, high = proportion_confint(self.hits, self.of, method="wilson")
        return f"{self.hits / self.of:.3f} ({low:.3f} to {high:.3f})"


# Draws one study of so many pretraining seeds, and says what was found in it.
Study = Callable[[Generator, int], Mapping[str, bool]]
# What should be found how often, by the number of pretraining seeds; None: nothing is known.
Theories = Mapping[str, Callable[[int], Theory | None]]


def draw_scores(
    generator: Generator, seeds: int, means: Mapping[str, float], noise: Mapping[str, float] | None = None
) -> dict[str, Floats]:
    """Return scores [P, F] of arms; `noise` is how many times as much an arm scatters."""
    shared = SHARED * generator.standard_normal((seeds, 1))
    return {
        arm: mean + shared + (noise or {}).get(arm, 1.0) * _scatter(generator, seeds) for arm, mean in means.items()
    }


def _scatter(generator: Generator, seeds: int) -> Floats:
    own: Floats = SEED * generator.standard_normal((seeds, 1))
    return own + FINE * generator.standard_normal((seeds, FINE_SEEDS))


def sd_of(weights: Mapping[str, float]) -> float:
    """Return the planted standard deviation over pretraining seeds of a contrast whose weights add up to 0."""
    return math.sqrt(sum(weight**2 for weight in weights.values()) * (SEED**2 + FINE**2 / FINE_SEEDS))


def planned(seeds: int, kind: Kind, weights: Mapping[str, float] = DIFFERENCE) -> float:
    """Return the margin or effect, in points, that the planner says such a study shows with 80% power."""
    return sd_of(weights) * margin_reached(seeds, kind=kind, power=POWER, alpha=ALPHA)


def no_difference(generator: Generator, seeds: int) -> Mapping[str, bool]:
    """Test for a difference where there is none, of normal scores and of runs that sometimes diverge."""
    found: dict[str, bool] = {}
    for what, chance in (("", 0.0), (", diverging runs", DIVERGING)):
        scores = draw_scores(generator, seeds, {"frozen": 70, "unfrozen": 70})
        lost = {arm: LOST * (generator.random((seeds, 1)) < chance) for arm in scores}
        difference = contrast({arm: scores[arm] - lost[arm] for arm in scores}, DIFFERENCE)
        found[f"superiority, t{what}"] = superior(difference, alpha=ALPHA).shown
        found[f"superiority, sign flips{what}"] = _flips(difference, generator)
    return found


def _flips(difference: Floats, generator: Generator) -> bool:
    seed = int(generator.integers(2**32))  # other random patterns in each study, or their error would not average out
    return sign_flip(difference, seed=seed, patterns=RANDOM_PATTERNS).p <= ALPHA


def some_difference(generator: Generator, seeds: int, effect: float) -> Mapping[str, bool]:
    """Test for a difference where there is one."""
    difference = contrast(draw_scores(generator, seeds, {"frozen": 70 + effect, "unfrozen": 70}), DIFFERENCE)
    return {
        "superiority, t": superior(difference, alpha=ALPHA).shown,
        "superiority, sign flips": _flips(difference, generator),
    }


def margins_at(generator: Generator, seeds: int, no_loss: float, same: float, *, edge: bool) -> Mapping[str, bool]:
    """Test no loss and equivalence with fixed margins, where the truth is at their edges, or the arms are the same."""
    noise = contrast(draw_scores(generator, seeds, {"frozen": 70, "unfrozen": 70}), DIFFERENCE)
    return {
        "no loss, fixed margin": noninferior(noise - edge * no_loss, no_loss, alpha=ALPHA).shown,
        "equivalence, fixed margins": tost(noise + edge * same, -same, same, alpha=ALPHA).shown,
    }


def share_at_edge(generator: Generator, seeds: int) -> Mapping[str, bool]:
    """Test no loss of a share of a gain where just this share is lost, or where there is no gain."""
    means = {"frozen": 70 - SHARE * SURE_GAIN, "unfrozen": 70, "no-vlp": 70 - SURE_GAIN}
    plain, noisy = draw_scores(generator, seeds, means), draw_scores(generator, seeds, means, NOISY)
    void = draw_scores(generator, seeds, dict.fromkeys(means, 70.0))
    test = partial(share_of_gain, arm="frozen", reference="unfrozen", floor="no-vlp", share=SHARE, alpha=ALPHA)
    known = SHARE * float(contrast(noisy, {"unfrozen": 1, "no-vlp": -1}).mean())
    return {
        "no loss, share of a gain": test(plain).no_loss,
        "no loss, share of no gain": test(void).no_loss,
        "no loss, noisy floor, share of a gain": test(noisy).no_loss,
        "no loss, noisy floor, mean gain taken as known": noninferior(
            contrast(noisy, DIFFERENCE), known, alpha=ALPHA
        ).shown,
    }


def share_kept(generator: Generator, seeds: int, margin: float) -> Mapping[str, bool]:
    """Test no loss of a share of a gain where nothing is lost, and the share of the gain is `margin`."""
    scores = draw_scores(generator, seeds, {"frozen": 70, "unfrozen": 70, "no-vlp": 70 - margin / SHARE})
    test = share_of_gain(scores, arm="frozen", reference="unfrozen", floor="no-vlp", share=SHARE, alpha=ALPHA)
    return {"no loss, share of a gain": test.no_loss}


def four_nulls(generator: Generator, seeds: int) -> Mapping[str, bool]:
    """Test four differences of which none is there, and say whether any comes out after Holm's correction."""
    names = "abcd"
    scores = draw_scores(generator, seeds, dict.fromkeys([*names, *names.upper()], 70.0))
    apart = {name: t_test(contrast(scores, {name: 1, name.upper(): -1})) for name in names}
    shared = {name: t_test(contrast(scores, {name: 1, "A": -1})) for name in names}
    return {
        "any of four by Holm, arms of their own": any(holm(apart, alpha=ALPHA).stands.values()),
        "any of four by Holm, one arm in all": any(holm(shared, alpha=ALPHA).stands.values()),
    }


def draw_outcomes(generator: Generator, seeds: int, item_arm: float) -> tuple[dict[str, Floats], float]:
    """Return outcomes [P, F, U] of two arms without a difference over all items, and what it is on those drawn."""
    scores = draw_scores(generator, seeds, {"frozen": 70, "unfrozen": 70})
    item = ITEM * generator.standard_normal(ITEMS)
    own = {arm: item_arm * generator.standard_normal(ITEMS) for arm in scores}
    outcomes = {}
    for arm, score in scores.items():
        of_seed = SEED_ITEM * generator.standard_normal((seeds, 1, ITEMS))
        rest = RESIDUAL * generator.standard_normal((*score.shape, ITEMS))
        outcomes[arm] = score[..., None] + item + own[arm] + of_seed + rest
    return outcomes, float(own["frozen"].mean() - own["unfrozen"].mean())


def intervals(generator: Generator, seeds: int) -> Mapping[str, bool]:
    """Return which intervals hold the truth."""
    found: dict[str, bool] = {}
    for matters, item_arm in ITEM_ARM.items():
        outcomes, on_these = draw_outcomes(generator, seeds, item_arm)
        t = estimate(contrast({arm: array.mean(axis=2) for arm, array in outcomes.items()}, DIFFERENCE), level=LEVEL)
        draws = int(generator.integers(2**32))
        low, high = bootstrap(outcomes, DIFFERENCE, seed=draws, resamples=RESAMPLES, level=LEVEL)
        if matters == "seeds":
            found["t, of the effect on these items"] = t.low <= on_these <= t.high
        else:
            found["t, of the effect on all items; items matter"] = t.low <= 0 <= t.high
        found[f"bootstrap, of the effect on all items; {matters} matter"] = low <= 0 <= high
    return found


def measured(study: Study, theories: Theories, seeds: int, repetitions: int, generator: Generator) -> list[Rate]:
    """Return how often each thing was found in repeated studies."""
    hits: Counter[str] = Counter()
    for _ in range(repetitions):
        hits.update(name for name, found in study(generator, seeds).items() if found)
    return [Rate(name, seeds, hits[name], repetitions, theory(seeds)) for name, theory in theories.items()]


def flips_theory(seeds: int) -> Theory:
    """Return how often sign flips find nothing at all at ALPHA: patterns come in whole numbers."""
    patterns = 2**seeds if seeds <= EXACT_SEEDS else RANDOM_PATTERNS + 1
    return Theory(math.floor(ALPHA * patterns) / patterns)


def percentile_theory(seeds: int) -> Theory:
    """Return about how often a percentile interval covers if items hardly matter."""
    fine = FINE**2 / FINE_SEEDS
    # the runs of a seed are resampled with the seed and once more within it
    variance = (seeds - 1) / seeds + fine * (FINE_SEEDS - 1) / FINE_SEEDS / (SEED**2 + fine)
    quantile = stats.norm.isf((1 - LEVEL) / 2) * math.sqrt(variance)
    return Theory(float(1 - 2 * stats.t.sf(quantile, seeds - 1)), "about")


def edge_theory(seeds: int) -> Theory:
    """Return how often the TOST with planned margins says "the same" if the truth is at one of them."""
    margin = margin_reached(seeds, power=POWER, alpha=ALPHA)
    return Theory(power_of_tost(seeds, margin, true=margin, alpha=ALPHA))


def _nothing(_: int) -> None:
    return None


def _always(rate: float, bound: Bound = "exact") -> Callable[[int], Theory]:
    return lambda _: Theory(rate, bound)


FALSE_POSITIVES: Theories = {
    "superiority, t": _always(ALPHA),
    "superiority, sign flips": flips_theory,
    "superiority, t, diverging runs": _nothing,
    "superiority, sign flips, diverging runs": flips_theory,
    "no loss, fixed margin": _always(ALPHA),
    "equivalence, fixed margins": edge_theory,
    "no loss, share of a gain": _always(ALPHA),
    "no loss, share of no gain": _always(ALPHA, "at most"),
    "no loss, noisy floor, share of a gain": _always(ALPHA),
    "no loss, noisy floor, mean gain taken as known": _nothing,
    "any of four by Holm, arms of their own": _always(1 - (1 - ALPHA / 4) ** 4),
    "any of four by Holm, one arm in all": _always(ALPHA, "at most"),
}
POWERS: Theories = {
    "superiority, t": _always(POWER),
    "superiority, sign flips": _nothing,
    "no loss, fixed margin": _always(POWER),
    "equivalence, fixed margins": _always(POWER),
    "no loss, share of a gain": _always(POWER),
}
COVERAGE: Theories = {
    "t, of the effect on these items": _always(LEVEL),
    "bootstrap, of the effect on all items; seeds matter": percentile_theory,
    "t, of the effect on all items; items matter": _nothing,
    "bootstrap, of the effect on all items; items matter": _nothing,
}


def false_positive_study(seeds: int) -> Study:
    """Return the study of true nulls."""
    margins = partial(margins_at, no_loss=planned(seeds, "no-loss"), same=planned(seeds, "equivalence"), edge=True)
    return _together(no_difference, margins, share_at_edge, four_nulls)


def power_study(seeds: int) -> Study:
    """Return the study of true effects."""
    return _together(
        partial(some_difference, effect=planned(seeds, "superiority")),
        partial(margins_at, no_loss=planned(seeds, "no-loss"), same=planned(seeds, "equivalence"), edge=False),
        partial(share_kept, margin=planned(seeds, "no-loss", KEEPS)),
    )


def _together(*studies: Study) -> Study:
    return lambda generator, seeds: {
        name: found for study in studies for name, found in study(generator, seeds).items()
    }


def all_rates(repetitions: int, slow: int, seeds: Sequence[int] = SEEDS) -> dict[str, list[Rate]]:
    """Return the rates of each table; intervals are repeated `slow` times."""
    found: dict[str, list[Rate]] = {"false positives": [], "power": [], "coverage": []}
    gc.freeze()  # multipletests collects garbage in each call: let it not walk all that is loaded
    try:
        for count in seeds:
            null, effect = false_positive_study(count), power_study(count)
            draws = (np.random.default_rng([part, count]) for part in range(3))
            found["false positives"] += measured(null, FALSE_POSITIVES, count, repetitions, next(draws))
            found["power"] += measured(effect, POWERS, count, repetitions, next(draws))
            found["coverage"] += measured(intervals, COVERAGE, count, slow, next(draws))
    finally:
        gc.unfreeze()
    return found


def outside(rates: Sequence[Rate]) -> list[Rate]:
    """Return the rates that differ from their theory, corrected by Holm for all that have one."""
    tested = {f"{index}": rate.p for index, rate in enumerate(rates)}
    stands = holm({index: p for index, p in tested.items() if p is not None}).stands
    return [rates[int(index)] for index, differs in stands.items() if differs]


def rate_table(rates: Sequence[Rate], marked: Sequence[Rate]) -> str:
    """Return a table: for each number of seeds the rate and its theory; `outside` marks those that differ."""
    counts = sorted({rate.seeds for rate in rates})
    rows: dict[str, list[str]] = {}
    for rate in sorted(rates, key=lambda rate: rate.seeds):
        cells = [f"{rate}{' outside' if rate in marked else ''}", str(rate.theory or "-")]
        rows.setdefault(rate.name, [rate.name]).extend(cells)
    header = ["", *(title for count in counts for title in (f"{count} seeds", "theory"))]
    return table(header, list(rows.values()))


def variance_rows(repetitions: int, seeds: Sequence[int] = SEEDS) -> list[list[str]]:
    """Return a row for each component: planted, and the mean estimate of one arm by the number of pretraining seeds."""
    planted = {
        "pretraining seed": SHARED**2 + SEED**2,
        "fine-tuning seed": FINE**2,
        "item": ITEM**2 + ITEM_ARM["seeds"] ** 2,
        "seed x item": SEED_ITEM**2,
        "residual": RESIDUAL**2,
    }
    rows = {source: [source, f"{variance:.2f}"] for source, variance in planted.items()}
    for count in seeds:
        generator = np.random.default_rng([3, count])
        for source, estimates in _components(generator, count, repetitions).items():
            rows[source].append(f"{estimates.mean():.3f} +- {stats.sem(estimates):.3f}")
    return list(rows.values())


def _components(generator: Generator, seeds: int, repetitions: int) -> dict[str, Floats]:
    """Return the estimates [repetitions] of each component."""
    splits = [
        split_variance(draw_outcomes(generator, seeds, ITEM_ARM["seeds"])[0]["frozen"]).components
        for _ in range(repetitions)
    ]
    return {source: np.array([split[source] for split in splits]) for source in splits[0]}


def margin_rows() -> Iterator[list[str]]:
    """Yield a row for each number of seeds: margins by kind, and what sign flips can give."""
    for seeds in SEEDS:
        reached = (f"{margin_reached(seeds, kind=kind, power=POWER, alpha=ALPHA):.3f}" for kind in KINDS.values())
        yield [str(seeds), *reached, f"{least_p(seeds):.3g}"]


def needed_rows() -> Iterator[list[str]]:
    """Yield a row for each margin: seeds by kind."""
    for margin in (0.5, 0.75, 1.0, 1.5, 2.0, 2.7):
        yield [
            str(margin),
            *(str(seeds_needed(margin, kind=kind, power=POWER, alpha=ALPHA)) for kind in KINDS.values()),
        ]


def page(rates: Mapping[str, Sequence[Rate]], repetitions: int, slow: int) -> str:
    """Return the page."""
    every = [rate for part in rates.values() for rate in part]
    marked, tested = outside(every), sum(rate.p is not None for rate in every)
    verdict = (
        f"Of {tested} rates that theory says exactly, or bounds, {len(marked)} lie outside (exact binomial tests, "
        f"corrected by Holm at 5%{'; marked' if marked else ''})."
    )
    return TEXT.format(
        repetitions=repetitions,
        slow=slow,
        verdict=verdict,
        numpy=np.__version__,
        scipy=scipy.__version__,
        statsmodels=statsmodels.__version__,
        shared=SHARED,
        seed=SEED,
        fine=FINE,
        alpha=ALPHA,
        power=POWER,
        share=SHARE,
        diverging=DIVERGING,
        lost=LOST,
        level=LEVEL,
        margins=table(["seeds", *KINDS, "least p of sign flips"], list(margin_rows())),
        needed=table(["standard deviations", *KINDS], list(needed_rows())),
        ten=margin_reached(10, power=POWER, alpha=ALPHA),
        exactly=seeds_needed(1.0, power=POWER, alpha=ALPHA),
        false_positives=rate_table(rates["false positives"], marked),
        powers=rate_table(rates["power"], marked),
        little=ITEM_ARM["seeds"],
        much=ITEM_ARM["items"],
        items=ITEMS,
        resamples=RESAMPLES,
        coverage=rate_table(rates["coverage"], marked),
        variance=table(["source", "planted", *(f"{seeds} seeds" for seeds in SEEDS)], variance_rows(slow)),
    )


def main() -> None:
    """Measure, print and write the page.

    Raises:
        SystemExit: a rate lies outside what theory puts.
    """
    parser = argparse.ArgumentParser(description="Rates of the statistics of studies on planted effects.")
    parser.add_argument("--repetitions", type=int, default=4000)
    parser.add_argument("--write", action="store_true", help="write docs/power.md")
    arguments = parser.parse_args()
    slow = max(1, arguments.repetitions // 4)
    rates = all_rates(arguments.repetitions, slow)
    text = page(rates, arguments.repetitions, slow)
    print(text)
    if arguments.write:
        PAGE.write_text(text, encoding="utf-8")
    if strange := outside([rate for part in rates.values() for rate in part]):
        raise SystemExit(f"Outside what theory puts: {', '.join(f'{r.name} at {r.seeds} seeds' for r in strange)}.")


if __name__ == "__main__":
    main()
