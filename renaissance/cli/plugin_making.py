"""`new-plugin`: a package that installs, is listed and conforms, to be changed. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def add_to(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command("new-plugin", epilog="Example: renaissance new-plugin xyz --kind fusion-head")(new_plugin)


def new_plugin(
    name: Annotated[str, typer.Argument(help="What it is called, as in 'xyz:component'; lower-case letters.")],
    kind: Annotated[
        Literal["backbone", "fusion-head", "task"], typer.Option("--kind", help="What it offers.")
    ] = "fusion-head",
    out: Annotated[Path, typer.Option(help="The folder in which its folder is made.")] = Path("."),
) -> None:
    """Write the package of a new plugin: a small component that works, to be changed into yours."""
    from renaissance.testing.writing import TEMPLATES_OF, write_plugin

    folder = write_plugin(name, kind, out)
    short = folder.name.removeprefix("renaissance-plugin-")
    print(f"Wrote {folder}")
    print(f"Install it:  pip install -e {folder}")
    print(f"Look at it:  renaissance show {short}:{TEMPLATES_OF[kind].component}")
    print(f"Check it:    renaissance conform {short}")
