"""`card`: the model card of a saved model, shown, written or checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renaissance.cli.output import note
from renaissance.errors import SpecError

EXAMPLES = """Example: renaissance card runs/demo

Example: renaissance card runs/demo --write --license apache-2.0

Example: renaissance card runs/demo --check"""


def add_to(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command("card", epilog=EXAMPLES)(card)


def card(
    place: Annotated[
        Path, typer.Argument(metavar="PLACE", help="The folder of a run, or of a saved model.", show_default=False)
    ],
    write: Annotated[bool, typer.Option("--write", help="Write it into the model's folder, as README.md.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Fail if the card there is stale, edited, or tells what it should not.")
    ] = False,
    repo: Annotated[str | None, typer.Option(help="What the model is called on the Hub: 'organisation/name'.")] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="The Hub's identifier of the licence of its weights.")
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option("--language", help="A language of its texts, as 'en'; may be repeated.")
    ] = None,
    shorten_paths: Annotated[
        bool, typer.Option("--shorten-paths", help="With --write: keep of each path in files beside it the last name.")
    ] = False,
) -> None:
    """Print the card of a model, made from its files; what stands below '<!-- yours -->' in one there is kept."""
    if check and (write or repo or licence or language):
        raise SpecError("--check compares what is there, and changes nothing; leave the other options out.")
    if shorten_paths and not write:
        raise SpecError("--shorten-paths changes recipe, scores, ledger and config of the model; give it with --write.")
    from renaissance.card import card_of, check_card, write_card
    from renaissance.card import shorten_paths as shorten

    if check:
        check_card(place)
        note(f"The card of {place} is what its files say.")
        return
    languages = language or []
    if not write:
        print(card_of(place, repo=repo, licence=licence, languages=languages), end="")
        return
    for name in shorten(place) if shorten_paths else ():
        note(f"A path became '{name}'.")
    print(write_card(place, repo=repo, licence=licence, languages=languages))
