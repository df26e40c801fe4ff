"""`export`: a model as files that run without renaissance."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from renaissance.cli.models import ModelPlace, Revision, Trust
from renaissance.cli.output import JsonFlag, print_facts, print_json
from renaissance.cli.quiet import quiet


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("export", epilog="Example: renaissance export runs/demo exported --part dual")(export)


def export(
    model: ModelPlace,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write, a new one.", show_default=False)],
    kind: Annotated[Literal["onnx", "torch-export"], typer.Option("--format", help="ONNX files, or .pt2.")] = "onnx",
    part: Annotated[
        Literal["dual", "vision", "text", "match"],
        typer.Option("--part", help="Unit vectors of both (dual), a tower, or probabilities of pairs (match)."),
    ] = "dual",
    revision: Revision = None,
    trust: Trust = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a model as graphs that run without renaissance, with any batch size and text length; each is compared."""
    with quiet():
        from renaissance.exporting import export as write
        from renaissance.pretrained import from_pretrained

        loaded = from_pretrained(model, revision=revision, trust=tuple(trust or ()))
        done = write(loaded, out, format=kind, part=part)
    if as_json:
        print_json({**asdict(done), "folder": str(done.folder)})
        return
    print_facts([("folder", str(done.folder)), ("spec", done.spec)])
    print_facts([(graph.file, f"differs from the model by {graph.difference:.1e} at most") for graph in done.graphs])
