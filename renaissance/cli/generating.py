"""`data world`: scenes with pictures and texts, in the layouts in which corpora are published."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from renaissance.cli.output import JsonFlag, print_json, print_table

SIZE = 2000
# more processes than this only wait for the disk
MOST_PROCESSES = 8


def add_to(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command("world", epilog="Example: renaissance data world world --size 2000 --languages en,de,es")(world)


def _kinds(name: str, example: str) -> Any:
    told = f"Of which {name} scenes are drawn, separated by commas: {example}."
    return typer.Option(f"--{name}", help=told, show_default="all")


def world(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.", show_default=False)],
    size: Annotated[int, typer.Option("--size", help="How many scenes; 15% each are for validation and test.")] = SIZE,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same files.")] = 0,
    languages: Annotated[
        str,
        typer.Option("--languages", help="Of the texts, separated by commas: en, de, es; the first is the main one."),
    ] = "en",
    layouts: Annotated[
        str | None,
        typer.Option("--layouts", help="Which layouts to write, separated by commas.", show_default="all"),
    ] = None,
    image_size: Annotated[int, typer.Option("--image-size", help="Pixels a side.")] = 128,
    shapes: Annotated[str | None, _kinds("shapes", "circle,star")] = None,
    colours: Annotated[str | None, _kinds("colours", "red,blue")] = None,
    textures: Annotated[str | None, _kinds("textures", "plain")] = None,
    backgrounds: Annotated[str | None, _kinds("backgrounds", "white,light grey")] = None,
    compositional: Annotated[
        bool,
        typer.Option(
            "--compositional",
            help="Hold out a fourth of the pairs of shape and colour, for a split of their own, 'test_compositional'.",
        ),
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option("--processes", min=1, help="How many processes draw and write.", show_default="one a core"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a world of simple scenes, and write it as COCO, Visual Genome, VQAv2 and a dozen others are published.

    Everything that is said of a scene follows from its graph, so it is known what is true. OUT/LAYOUT can be given to
    'renaissance data prepare LAYOUT'; further languages are in OUT/LAYOUT-LANGUAGE, with the same images and truth.
    """
    from renaissance.data.world.build import write_world
    from renaissance.data.world.kinds import choose_kinds

    chosen = None if layouts is None else _names(layouts)
    given = {"shapes": shapes, "colours": colours, "textures": textures, "backgrounds": backgrounds}
    kinds = choose_kinds(**{name: _names(text) for name, text in given.items() if text is not None})
    count = min(MOST_PROCESSES, os.cpu_count() or 1) if processes is None else processes
    manifest = write_world(
        out,
        size,
        seed,
        _names(languages),
        chosen,
        image_size=image_size,
        processes=1 if size < SIZE // 4 else count,
        kinds=kinds,
        compositional=compositional,
    )
    if as_json:
        print_json(manifest)
        return
    print_table(
        ("layout", "split or part", "items", "chance", "blind", "oracle", "the blind one"),
        _rows(manifest["figures"]),
        right=("items", "chance", "blind", "oracle"),
    )
    print(f"\nwritten  {out}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _rows(figures: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for layout, by_split in figures.items():
        for split, figure in by_split.items():
            scores = (f"{figure[name]:.1f}" for name in ("chance", "blind", "oracle"))
            yield (layout, split, f"{figure['n']:,}", *scores, figure["rule"])
