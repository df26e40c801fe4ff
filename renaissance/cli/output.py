"""What commands print: tables for people, JSON for machines; standard output carries nothing else."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Annotated, Any

import typer

from renaissance.api import Unknown
from renaissance.errors import SpecError
from renaissance.spec import parse_json, shown

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]


def given_spec(line: str) -> object:
    """Return a spec as it was given: one line of shorthand, or what its JSON holds.

    Raises:
        SpecError: it is no JSON, or the name of a file.
    """
    if line.lstrip().startswith("{"):
        return parse_json(line, what="spec")
    if line.endswith((".yaml", ".yml")) or os.path.isfile(line):
        raise SpecError(
            f"'{shown(line)}' is a recipe's file, and no spec; a recipe is read by 'renaissance run FILE' and by "
            "'renaissance freeze-map --recipe FILE'."
        )
    return line


def print_json(data: object) -> None:
    """Print data as JSON; facts that are not known become {"unknown": reason}."""
    print(json.dumps(data, indent=2, ensure_ascii=False, default=_plain))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()) -> None:
    """Print a table; `right` names columns that are aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        last = column == columns[-1]
        table.add_column(
            column, justify="right" if column in right else "left", no_wrap=not last, overflow="fold", header_style=""
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = _console()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


def print_facts(facts: Iterable[tuple[str, str]], *, indent: str = "") -> None:
    """Print one line a fact: its name and its value, in two columns."""
    lines = list(facts)
    width = max((len(name) for name, _ in lines), default=0)
    for name, value in lines:
        print(f"{indent}{name:<{width}}  {value}")


def note(line: str) -> None:
    """Print one line for the user to standard error."""
    print(line, file=sys.stderr)


def json_text(value: object) -> str:
    """Return a value as a spec writes it."""
    return json.dumps(value, ensure_ascii=False)


def shown_value(value: object) -> str:
    """Return a fact as people read it."""
    match value:
        case Unknown():
            return value.reason
        case None:
            return "none"
        case True | False:
            return "yes" if value else "no"
        case (int(), *_):
            return " x ".join(map(str, value))
        case tuple() | list() | frozenset() | set():
            items = sorted(value) if isinstance(value, frozenset | set) else value
            return ", ".join(map(str, items)) or "none"
        case _:
            return str(value)


def _console() -> Any:
    """Return a console on standard output: as wide as the terminal, and without a limit where there is none."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=1000, color_system=None)


def _plain(value: object) -> object:
    if isinstance(value, Unknown):
        return {"unknown": value.reason}
    if isinstance(value, frozenset | set):
        return sorted(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
