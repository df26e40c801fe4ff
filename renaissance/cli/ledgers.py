"""`ledger`: what runs took, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from renaissance.cli.output import JsonFlag, print_json, print_table

EXAMPLES = """Example: renaissance ledger runs/demo

Example: renaissance ledger runs/none runs/frozen runs/frozen-store --json"""
Facts = Mapping[str, Any]
Figures = Sequence[float | None]
Show = Callable[[Figures], list[str]]


def add_to(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command("ledger", epilog=EXAMPLES)(ledger)


def ledger(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs that are done.")],
    as_json: JsonFlag = False,
) -> None:
    """Show what runs took: FLOPs by part, samples and tokens, seconds by phase, memory; expected and compared."""
    from renaissance.training.ledger_file import read_ledger

    found = [read_ledger(run) for run in runs]
    if as_json:
        print_json({str(run): facts for run, facts in zip(runs, found, strict=True)})
        return
    names = [str(run) for run in runs]
    print_table(("", *names), _rows(found), right=names)


def _rows(found: Sequence[Facts]) -> list[tuple[str, ...]]:
    """Return a row for each figure that one of the ledgers has."""
    return [
        *((name, *_count([facts[name] for facts in found])) for name in ("updates", "samples")),
        *_group(found, "{} tower calls", "tower_calls", _count),
        *_group(found, "{} encoded", "encoded", _count),
        *_group(found, "{} from the store", "from_store", _count),
        *_group(found, "text tokens, {}", "text_tokens", _count),
        *_group(found, "predicted by {}", "predicted", _count),
        *_flops(found),
        *_group(found, "FLOPs, {}", "compared", _flop),
        *_group(found, "wall seconds, {}", "wall_seconds", _second),
        *_group(found, "CPU seconds, {}", "cpu_seconds", _second),
        *_group(found, "peak memory, {}", "peak_memory_bytes", _byte),
        *_group(found, "bytes read, {}", "bytes_read", _byte),
    ]


def _flops(found: Sequence[Facts]) -> list[tuple[str, ...]]:
    by_part = [facts["flops"] for facts in found]
    rows = [
        (f"{part} {way} FLOPs", *_flop([flops[part][way] for flops in by_part]))
        for part in ("vision", "text", "fusion", "heads")
        for way in ("forward", "backward", "recomputed")
        if any(flops[part][way] for flops in by_part)
    ]
    expected = _flop([facts["forecast"].get("flops") for facts in found])
    return [*rows, ("FLOPs, forecast", *(figure or "not known" for figure in expected))]


def _group(found: Sequence[Facts], label: str, name: str, show: Show) -> list[tuple[str, ...]]:
    keys = dict.fromkeys(key for facts in found for key in facts[name])
    return [(label.format(key), *show([facts[name].get(key) for facts in found])) for key in keys]


# --- figures: a row's own, "" where a run has none ----------------------------------------------------------------


def _count(values: Figures) -> list[str]:
    return ["" if value is None else f"{value:,}" for value in values]


def _second(values: Figures) -> list[str]:
    return ["" if value is None else f"{value:,.1f}" for value in values]


def _flop(values: Figures) -> list[str]:
    return _in_units(values, ("", "k", "M", "G"), places=3)


def _byte(values: Figures) -> list[str]:
    return _in_units(values, ("B", "kB", "MB"), places=1)


def _in_units(values: Figures, units: Sequence[str], *, places: int) -> list[str]:
    """Return the figures of a row in one unit: the largest of which its smallest figure but 0 holds one."""
    least = min((value for value in values if value), default=0)
    power = max((number for number in range(len(units)) if 1000**number <= least), default=0)
    digits = places if power else 0
    return ["" if value is None else f"{value / 1000**power:,.{digits}f} {units[power]}".rstrip() for value in values]
