"""`evaluate --cascade`: what re-ranking gives for its cost, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from renaissance.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from renaissance.evaluation.cascade import Cascade

SHOWN = ("R@1", "R@5", "R@10", "sum of R@k")


def print_cascade(
    model: Any, data: Any, name: str, splits: Sequence[str] | None, *, as_json: bool, verbose: bool
) -> None:
    """Measure a cascade and print recall against FLOPs for each k; verbose: both directions apart."""
    from renaissance.cost import retrieval_costs
    from renaissance.evaluation.cascade import measure_cascade
    from renaissance.progress import Bars, closing

    with closing(Bars()) as progress:
        found = measure_cascade(
            model,
            data,
            lambda assembly, tokens: retrieval_costs(assembly, text_tokens=tokens),
            splits=splits,
            progress=progress,
        )
    if as_json:
        print_json({"model": name, "cascade": [row for split in found for row in split.as_json()]})
        return
    for number, split in enumerate(found):
        print(end="\n" if number else "")
        _print_split(split, verbose=verbose)
    note(
        "k: so many of the best by ITC are ordered by ITM, of each image and of each text; all: every pair is. Costs "
        "are of both directions, with the towers; a pair is matched once."
    )


def _print_split(split: Cascade, *, verbose: bool) -> None:
    names = [score.name for score in split.rows[0].scores if verbose or score.name in SHOWN]
    numbers = ("k", "pairs matched", "GFLOP", "all / this", *names)
    cells = []
    for row, facts in zip(split.rows, split.as_json(), strict=True):
        values = {score.name: f"{score.value:.1f}" for score in row.scores}
        cost = (f"{row.matched:,}", f"{row.flops / 1e9:,.1f}", f"{facts['full']:.2f}")
        cells.append((split.split, "all" if row.k is None else str(row.k), *cost, *(values[name] for name in names)))
    print_table(("split", *numbers), cells, right=numbers)
