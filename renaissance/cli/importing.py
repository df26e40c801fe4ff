"""`import`: from a checkpoint of another library to a model's folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from renaissance.cli.output import JsonFlag, print_facts, print_json
from renaissance.cli.quiet import quiet
from renaissance.errors import SpecError
from renaissance.importing.importers import IMPORTERS, checked_options, chosen_importer
from renaissance.plain_yaml import parse_yaml
from renaissance.spec import shown


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    example = "Example: renaissance import open-clip open_clip_model.safetensors my-clip --model ViT-B-32"
    app.command("import", epilog=example)(import_)


def import_(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help=f"Its layout: {', '.join(IMPORTERS)}.", show_default=False),
    ],
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", help="A safetensors file, or a folder with one or with shards.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The model's folder.", show_default=False)],
    model: Annotated[
        str | None, typer.Option("--model", help="The architecture by its library's name.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another option of this kind, as 'vision={image_size: 256}'."),
    ] = None,
    from_pickle: Annotated[
        bool, typer.Option("--from-pickle", help="Read a pickled file; nothing in it is run.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a model of another library's checkpoint; each of its tensors is used, or nothing is written."""
    options = _options(set_ or ()) | ({} if model is None else {"model": model})
    checked_options(kind, chosen_importer(kind), options)  # before torch is imported, which takes seconds
    with quiet():
        from renaissance.importing import import_checkpoint

        done = import_checkpoint(kind, checkpoint, out, from_pickle=from_pickle, **options)
    if as_json:
        print_json({**asdict(done), "folder": str(done.folder)})
        return
    left_out = [("left out", ", ".join(done.left_out))] if done.left_out else []
    print_facts([("model", str(done.folder)), ("spec", done.spec), ("tensors", f"{done.tensors} used"), *left_out])


def _options(changes: Sequence[str]) -> dict[str, Any]:
    """Return the options that 'key=value' lines say; values are YAML.

    Raises:
        SpecError: a line is no 'key=value', or says a key again.
    """
    options: dict[str, Any] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not key.isidentifier() or key in options:
            raise SpecError(
                f"'--set {shown(change)}' is no 'key=value', or its key was given before; write each option once, as "
                "'--set vision={image_size: 256}'."
            )
        options[key] = parse_yaml(value.encode(), what=f"--set {shown(key)}")
    return options
