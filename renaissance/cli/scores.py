"""Tables of scores, from the rows that scores.json holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from renaissance.cli.output import note, print_table

Row = Mapping[str, Any]
SHUFFLED = "other images / texts"
MOST_TIES = 0.1  # percent; more of them say that the scores were not told apart


def print_run_scores(results: Mapping[str, Any], *, verbose: bool) -> None:
    """Print one row a score: chance, the untrained model, the bridge, the blind twin, the trained model, as measured.

    Recalls are shown as the mean of both directions; `verbose` shows all. The primary score is marked. Where the
    trained model was measured on images, and on texts, of other samples as well, these figures have a column.
    """
    rows: list[Row] = results["scores"]
    others_known = ("untrained", "bridge", "blind")
    by_model = {
        model: {_key(row): row for row in rows if row["model"] == model} for model in (*others_known, "trained")
    }
    others = [model for model in others_known if by_model[model]]
    table = []
    told = _any_shuffled(by_model["trained"].values())
    for key, row in by_model["trained"].items():
        is_primary = not key[0] and "/".join(key[1:]) == results["primary"]
        if verbose or is_primary or not _said_by_means(row["name"]):
            before = [_value(by_model[model].get(key)) for model in others]
            name = f"{row['name']} (primary)" if is_primary else row["name"]
            where = "/".join(filter(None, key[:2]))
            shuffled = [_shuffled(row)] if told else []
            table.append([where, row["task"], name, f"{row['chance']:.1f}", *before, *shuffled, _with_interval(row)])
    numbers = ("chance", *others, *([SHUFFLED] if told else []), "trained [95%]")
    print_table(("split", "task", "score", *numbers), table, right=numbers)
    _warn_of_ties(by_model["trained"].values())


def print_scores(rows: Iterable[Row], *, verbose: bool) -> None:
    """Print one row a score of one model; the data stand in a column of their own where there are several."""
    rows = list(rows)
    shown = [row for row in rows if verbose or not _said_by_means(row["name"])]
    where = ("data", "split", "task") if any(row.get("data") for row in shown) else ("split", "task")
    told = _any_shuffled(shown)
    cells = [
        [
            *(row[name] for name in where),
            row["name"],
            f"{row['chance']:.1f}",
            *([_shuffled(row)] if told else []),
            _with_interval(row),
            f"{row['ties']:.2f}%",
            str(row["n"]),
        ]
        for row in shown
    ]
    numbers = ("chance", *([SHUFFLED] if told else []), "score [95%]", "ties", "decisions")
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


def _key(row: Row) -> tuple[str, str, str, str]:
    return row.get("data", ""), row["split"], row["task"], row["name"]


def _any_shuffled(rows: Iterable[Row]) -> bool:
    """Whether some were measured on images or texts of other samples; that of a twin stands in its own column."""
    return any({"vision", "text"} & set(row.get("blind") or ()) for row in rows)


def _shuffled(row: Row) -> str:
    """Return what is scored with other samples' images, and with other samples' texts."""
    blind = row.get("blind") or {}
    if not blind:
        return ""
    return " / ".join(f"{blind[modality]:.1f}" if modality in blind else "-" for modality in ("vision", "text"))


def _said_by_means(name: str) -> bool:
    """Whether the means in the table say as much: a recall of one direction, or the sum of all."""
    return name.removeprefix("reranked ").startswith(("text R@", "image R@", "sum of R@"))


def _value(row: Row | None) -> str:
    return "" if row is None else f"{row['value']:.1f}"


def _with_interval(row: Row) -> str:
    return f"{row['value']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
