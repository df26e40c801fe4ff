"""`data emoji`: a real multilingual set of pictures with captions, out of pip packages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from renaissance.cli.output import JsonFlag, note, print_json, print_table


def add_to(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command("emoji", epilog="Example: renaissance data emoji prepared/emoji --languages en,de,es")(emoji)


def emoji(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.", show_default=False)],
    languages: Annotated[str, typer.Option(help="Languages of the captions, with commas between.")] = "en,de,es",
    image_size: Annotated[int, typer.Option(min=16, max=2048, help="Pixels a side.")] = 160,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many emoji, in whole families.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws which families are held out.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Write emoji with their names in several languages as prepared data.

    The drawings and the names are files of pip packages (pip install 'renaissance-vl[emoji]'). Families of names are
    held out whole, each emoji with its skin tones.
    """
    from renaissance.data.emoji import write_emoji
    from renaissance.progress import Bars, closing

    names = [name.strip() for name in languages.split(",") if name.strip()]
    with closing(Bars()) as progress:
        manifest = write_emoji(out, names, image_size=image_size, limit=limit, seed=seed, progress=progress)
    if as_json:
        print_json(manifest)
        return
    print_table(
        ("split", "items"),
        [(name, f"{facts['count']:,}") for name, facts in manifest["splits"].items()],
        right=("items",),
    )
    for what, licence in manifest["licences"].items():
        note(f"{what}: {licence}")
    for what, count in manifest["left_out"].items():
        note(f"left out: {count:,} emoji ({what})")
    print(f"\nprepared  {out}")
