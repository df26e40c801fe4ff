"""Tables of scores, from the rows that scores.json holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from renaissance.cli.output import note, print_table

Row = Mapping[str, Any]
MOST_TIES = 0.1  # percent; more of them say that the scores were not told apart


def print_run_scores(results: Mapping[str, Any], *, verbose: bool) -> None:
    """Print one row a score: chance, the untrained model, the bridge, the blind twin, the trained model, as measured.

    Recalls are shown as the mean of both directions; `verbose` shows all. The primary score is marked.
    """
    rows: list[Row] = results["scores"]
    others_known = ("untrained", "bridge", "blind")
    by_model = {
        model: {_key(row): row for row in rows if row["model"] == model} for model in (*others_known, "trained")
    }
    others = [model for model in others_known if by_model[model]]
    table = []
    for key, row in by_model["trained"].items():
        is_primary = "/".join(key) == results["primary"]
        if verbose or is_primary or not _said_by_means(row["name"]):
            before = [_value(by_model[model].get(key)) for model in others]
            name = f"{row['name']} (primary)" if is_primary else row["name"]
            table.append([row["split"], row["task"], name, f"{row['chance']:.1f}", *before, _with_interval(row)])
    numbers = ("chance", *others, "trained [95%]")
    print_table(("split", "task", "score", *numbers), table, right=numbers)
    _warn_of_ties(by_model["trained"].values())


def print_scores(rows: Iterable[Row], *, verbose: bool) -> None:
    """Print one row a score of one model; the data stand in a column of their own where there are several."""
    rows = list(rows)
    shown = [row for row in rows if verbose or not _said_by_means(row["name"])]
    where = ("data", "split", "task") if any(row.get("data") for row in shown) else ("split", "task")
    cells = [
        [
            *(row[name] for name in where),
            row["name"],
            f"{row['chance']:.1f}",
            _with_interval(row),
            f"{row['ties']:.2f}%",
            str(row["n"]),
        ]
        for row in shown
    ]
    numbers = ("chance", "score [95%]", "ties", "decisions")
    print_table((*where, "score", *numbers), cells, right=numbers)
    _warn_of_ties(rows)


def _warn_of_ties(rows: Iterable[Row]) -> None:
    """Say on standard error how often scores tied, where it was more often than can be by chance."""
    tied = [row for row in rows if row["ties"] > MOST_TIES]
    if not tied:
        return
    worst = max(tied, key=lambda row: row["ties"])
    where = "/".join(filter(None, (worst.get("data"), worst["split"], worst["task"], worst["name"])))
    several = f", and more than {MOST_TIES}% in {len(tied)} scores" if len(tied) > 1 else ""
    note(
        f"Warning: {worst['ties']:.2f}% of the decisions of {where} tied{several}. Ties count as wrong; a model that "
        "gives many inputs one score has collapsed, or was run in too low a precision."
    )


def _key(row: Row) -> tuple[str, str, str]:
    return row["split"], row["task"], row["name"]


def _said_by_means(name: str) -> bool:
    """Whether the means in the table say as much: a recall of one direction, or the sum of all."""
    return name.removeprefix("reranked ").startswith(("text R@", "image R@", "sum of R@"))


def _value(row: Row | None) -> str:
    return "" if row is None else f"{row['value']:.1f}"


def _with_interval(row: Row) -> str:
    return f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
