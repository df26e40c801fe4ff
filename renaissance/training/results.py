"""What scores.json holds of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from renaissance.data.records import DataSet
from renaissance.evaluation.leaks import CHECKED, Shared
from renaissance.evaluation.splits import SplitScores
from renaissance.recipe import Recipe
from renaissance.training.loop import Trained


def results_of(
    recipe: Recipe,
    found: Mapping[str, Sequence[SplitScores]],
    trained: Trained,
    data: DataSet,
    *,
    surgery: Mapping[str, Sequence[str]],
    shared: Sequence[Shared],
    corpora: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, float],
    compute: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what scores.json holds; `corpora` are those of `corpora_of`, `compute` the ledger's main figures."""
    best = {} if trained.best is None else {"best": {**trained.best, "saved": recipe.save_best}}
    models = [(model, scores) for model, splits in found.items() for scores in splits]
    return {
        "format": 1,
        "name": recipe.name,
        "seed": recipe.seed,
        "primary": recipe.evaluation.primary,
        "training": {
            "samples": len(data.train),
            "updates": trained.steps,
            "batch_size": recipe.batch.size,
            **best,
            **({"stages_not_reached": list(trained.unreached)} if trained.unreached else {}),
        },
        "compute": dict(compute),
        "corpora": list(corpora),
        "overlap": {"checked": CHECKED, "found": [asdict(one) for one in shared]},
        "splits": {scores.name: scores.sizes() for _, scores in models},
        "scores": [{"model": model, **row} for model, scores in models for row in scores.rows()],
        "skipped": [
            *data.skipped,
            *trained.skipped,
            *(f"{scores.data}: {line}" for _, scores in models if scores.data for line in scores.skipped),
        ],
        "surgery": {what: len(names) for what, names in surgery.items()},
        "seconds": {name: round(value, 3) for name, value in {**seconds, "training": trained.seconds}.items()},
    }
