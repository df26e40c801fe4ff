"""`publish`: a run's model, with its card and scores, to the Hub."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from renaissance.cli.output import JsonFlag, print_facts, print_json, print_table
from renaissance.cli.quiet import quiet
from renaissance.saved_config import StoredType

if TYPE_CHECKING:
    from renaissance.publishing import Publication


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("publish", epilog="Example: renaissance publish runs/demo my-name/my-encoder --dry-run")(publish)


def publish(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The folder of a run, or of a saved model.", show_default=False)
    ],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="What it is called on the Hub.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", help="The branch; made where it is not there.", show_default="main")
    ] = None,
    trained_only: Annotated[
        bool, typer.Option("--trained-only", help="Name wholly frozen pretrained towers, and do not send them.")
    ] = False,
    dtype: Annotated[
        StoredType | None,
        typer.Option("--dtype", help="How weights are stored.", show_default="as they are"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be sent, and send nothing.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Send a run's model to the Hub, with its card, recipe, scores and ledger, as one commit."""
    with quiet():
        import renaissance

        done = renaissance.publish(
            run, repo, private=private, revision=revision, trained_only=trained_only, dtype=dtype, dry_run=dry_run
        )
    if as_json:
        print_json(asdict(done) | {"dry_run": dry_run})
        return
    _print_files(done)
    if dry_run:
        print_facts([("would go to", done.url), ("sent", "nothing (--dry-run)")])
    else:
        told = "new" if done.changed else "the same files were there already"
        print_facts([("published", done.url), ("commit", f"{done.commit} ({told})")])


def _print_files(done: Publication) -> None:
    rows = [[name, f"{size:,}"] for name, size in done.files.items()]
    print_table(("file", "bytes"), [*rows, ["in all", f"{sum(done.files.values()):,}"]], right=("bytes",))
    print()
