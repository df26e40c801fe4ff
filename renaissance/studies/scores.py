"""The scores of arms over their seeds, and where their spread comes from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from renaissance.studies.results import Figure, Key, Results
from renaissance.studies.statistics.paired import estimate
from renaissance.studies.statistics.variance import FINE, ONE_FINE, SEED, split_variance


def score_rows(results: Results) -> list[dict[str, Any]]:
    """Return a row for each arm, stage and score, of the pretraining seeds that have all runs."""
    return [
        _score(arm.name, stage, key, *results.whole(arm.name, stage, key))
        for arm in results.design.arms
        for stage in arm.recipes
        for key in results.keys(arm.name, stage)
        if results.whole(arm.name, stage, key)[0]
    ]


def _score(arm: str, stage: str, key: Key, seeds: Sequence[int], rows: Sequence[Sequence[Figure]]) -> dict[str, Any]:
    split, task, metric, model = key
    values = [[figure.value for figure in row] for row in rows]
    chances = [figure.chance for row in rows for figure in row if figure.chance is not None]
    means = [sum(row) / len(row) for row in values]
    told = estimate(means) if len(means) > 1 else None
    return {
        "arm": arm,
        "stage": stage,
        "split": split,
        "task": task,
        "metric": metric,
        "model": model,
        "chance": sum(chances) / len(chances) if chances else None,
        "mean": sum(means) / len(means),
        "sd": told and told.sd,
        "low": told and told.low,
        "high": told and told.high,
        "seeds": list(seeds),
        "values": values,
    }


def variance_rows(results: Results) -> tuple[list[dict[str, Any]], list[str]]:
    """Return for each arm where the spread of one run's score on the primary metric comes from; and what is not known.

    A run's score scatters by its pretraining seed, by its fine-tuning seed, and by which items the test drew: the last
    is the variance of an outcome, and of how runs differ on it, over the number of items.
    """
    study = results.design.study
    found: list[dict[str, Any]] = []
    unsplit: list[str] = []
    below: dict[str, list[str]] = {}
    metric = next(one.metric for one in study.hypotheses if one.name == study.primary)
    for arm in (arm.name for arm in results.design.arms):
        if results.untestable(metric, [arm]) is not None:
            continue
        seeds = results.pairs(metric, [arm]).seeds
        outcomes = results.outcomes(metric, [arm], seeds) if len(seeds) > 1 else None
        if outcomes is None:
            unsplit.append(f"'{arm}'")
            continue
        split = split_variance(outcomes[arm])
        parts = split.of_mean(seeds=1, fine=1, items=outcomes[arm].shape[2])
        total = sum(parts.values())
        seed, fine = parts[SEED], parts.get(FINE)
        shares = {"pretraining": seed, "finetuning": fine, "items": total - seed - (fine or 0.0)}
        told = {name: None if part is None else part / total if total else 0.0 for name, part in shares.items()}
        found.append({"metric": metric, "arm": arm, **told, "sd": math.sqrt(total)})
        for source in (source for source in split.below_zero if source in (SEED, FINE)):
            below.setdefault(source, []).append(f"'{arm}'")
    return found, list(_unknown(found, unsplit, below))


def _unknown(
    rows: Sequence[Mapping[str, Any]], unsplit: Sequence[str], below: Mapping[str, list[str]]
) -> Iterator[str]:
    """Yield what is not known of spreads, each once for all arms. below: the arms by source of an estimate below 0."""
    if unsplit:
        why = "it takes two pretraining seeds with outcomes of the same items"
        yield f"Variance of {', '.join(unsplit)}: not split, as {why}."
    if below:
        told = "; ".join(f"{source} in {', '.join(arms)}" for source, arms in below.items())
        yield f"Variance: where its estimate is below 0, as chance may have it, it is reported as 0 ({told})."
    if any(row["finetuning"] is None for row in rows):
        yield f"Variance: {ONE_FINE}"
