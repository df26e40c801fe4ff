"""`data prepare` and `data layouts`: from a published corpus to prepared data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from renaissance.cli.output import JsonFlag, note, print_json, print_table
from renaissance.errors import SpecError

SHOWN = 5
LayoutArgument = Annotated[
    str, typer.Argument(metavar="LAYOUT", help="What was published: see renaissance data layouts.", show_default=False)
]
RootArgument = Annotated[
    Path, typer.Argument(metavar="ROOT", help="The folder in which it was unpacked.", show_default=False)
]
OutArgument = Annotated[
    Path | None,
    typer.Argument(metavar="OUT", help="The folder to write; not needed with --check.", show_default=False),
]


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    example = "Example: renaissance data prepare coco-captions ../coco prepared/coco --on-bad-sample skip"
    app.command("prepare", epilog=example)(prepare)
    app.command("layouts", epilog="Example: renaissance data layouts --json")(layouts)


def prepare(
    layout: LayoutArgument,
    root: RootArgument,
    out: OutArgument = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with the published counts, say what is missing, and write nothing.")
    ] = False,
    check_images: Annotated[
        bool, typer.Option("--check-images", help="Decode each image too: finds the truncated ones, and takes longer.")
    ] = False,
    on_bad_sample: Annotated[
        Literal["error", "skip"],
        typer.Option(
            "--on-bad-sample", help="What to do with a row that cannot be used: stop, or leave out and count."
        ),
    ] = "error",
    skip_budget: Annotated[
        float | None,
        typer.Option(
            "--skip-budget",
            min=0.0,
            max=1.0,
            help="Largest share of the rows that may be left out, apart from those whose image is not there; by "
            "default as little as in a recipe.",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write a published corpus as prepared data: Parquet shards, with a manifest of what they were made of.

    A part of a corpus is welcome: with --on-bad-sample skip, what is missing is left out, and the manifest tells which
    fraction is there. Images are copied as they were published.
    """
    from renaissance.data.layouts import chosen_layout
    from renaissance.data.readers.published import LAYOUTS

    chosen = chosen_layout(layout, LAYOUTS)
    if out is None and not check:
        raise SpecError("OUT is missing: name the folder to write, or give --check to write nothing.")
    from renaissance.data import prepare as preparing
    from renaissance.progress import Bars, closing
    from renaissance.recipe.values import SKIP_BUDGET

    with closing(Bars()) as progress:
        if out is None or check:
            facts = preparing.check(chosen, root, check_images=check_images, progress=progress)
        else:
            facts = preparing.prepare(
                chosen,
                root,
                out,
                on_bad_sample=on_bad_sample,
                skip_budget=SKIP_BUDGET if skip_budget is None else skip_budget,
                check_images=check_images,
                progress=progress,
            )
    if as_json:
        print_json(facts)
        return
    _report(facts)
    if not check:
        print(f"\nprepared  {out}")


def layouts(as_json: JsonFlag = False) -> None:
    """List the published layouts that can be prepared."""
    from renaissance.data.readers.published import LAYOUTS, rows

    if as_json:
        names = ("name", "summary", "page", "files", "optional", "counts", "texts")
        print_json({"layouts": [{name: getattr(layout, name) for name in names} for layout in LAYOUTS.values()]})
        return
    print_table(("layout", "splits and published items", "what it is"), rows())


def _report(facts: Mapping[str, Any]) -> None:
    """Print what is in each split beside what was published, and what was left out."""
    print_table(
        ("split", "items", "published", "there", "images", "texts", "published texts"),
        _rows(facts),
        right=("items", "published", "there", "images", "texts", "published texts"),
    )
    skipped = facts["skipped"]
    for row in skipped["rows"][:SHOWN]:
        note(f"left out: {row}")
    if skipped["count"]:
        more = f", of which {SHOWN} are shown" if skipped["count"] > SHOWN else ""
        absent = f" The image of {skipped['missing']:,} is not there." if skipped["missing"] else ""
        note(f"Rows that cannot be used: {skipped['count']:,}{more}.{absent}")


def _rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    published = facts.get("published", {"items": {}, "texts": {}})
    fraction = facts.get("fraction", {})
    empty = {"items": 0, "images": 0, "texts": 0}
    expected = [split for split in published["items"] if split != "images"]
    for split in dict.fromkeys((*expected, *facts["counts"])):
        found = facts["counts"].get(split, empty)
        yield (
            split,
            f"{found['items']:,}",
            _count(published["items"].get(split)),
            f"{fraction[split]:.1%}" if split in fraction else "",
            f"{found['images']:,}",
            f"{found['texts']:,}",
            _count(published["texts"].get(split)),
        )


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
