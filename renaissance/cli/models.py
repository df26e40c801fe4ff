"""Which model a command asks: its place, and of a model of the Hub the revision, and the plugins that it may use."""

from __future__ import annotations

from typing import Annotated

import typer

ModelPlace = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A model's folder, a run's folder, or the Hub's 'organisation/name'.", show_default=False
    ),
]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a Hub model.")]
Trust = Annotated[list[str] | None, typer.Option("--trust", help="A plugin that a Hub model may use: xyz or xyz==1.2.")]
