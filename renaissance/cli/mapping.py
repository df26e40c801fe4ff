"""`freeze-map`: what of a model is frozen, layer by layer and stage by stage."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from renaissance.cli.output import JsonFlag, given_spec, print_json, print_table
from renaissance.errors import OutputError, SpecError

if TYPE_CHECKING:
    from renaissance.recipe import Recipe
    from renaissance.training.freeze_map import Cell, FreezeMap

EXAMPLES = """Example: renaissance freeze-map 'vit-base + bert-base, frozen vision, lora text'

Example: renaissance freeze-map --recipe pretrain.yaml --svg freezing.svg"""
# how a state looks in a table, and its colour in a drawing
MARKS = {"trained": "trained", "partly": "partly trained", "frozen": "frozen", "prefix": "frozen, no graph"}
COLOURS = {"trained": "#d95f02", "partly": "#fdb863", "frozen": "#80a9d6", "prefix": "#2b5c92"}


def add_to(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command("freeze-map", epilog=EXAMPLES)(freeze_map)


def freeze_map(
    line: Annotated[
        str | None,
        typer.Argument(metavar="[SPEC]", help="One line of shorthand, or a spec as JSON.", show_default=False),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="A recipe: its schedule, learning rates and tasks, and its spec if none is given."),
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the map into this file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show each part and layer: frozen or trained, with a graph or without, adapters, learning rate, by stage.

    Nothing is downloaded, no weight is made.
    """
    found = _mapped(line, recipe)
    if svg is not None:
        _write(svg, drawing(found))
    if as_json:
        print_json(asdict(found))
    else:
        _print(found)


def _mapped(line: str | None, path: Path | None) -> FreezeMap:
    from renaissance.cost import assemble_on_meta
    from renaissance.recipe import load_recipe
    from renaissance.recipe.freezing import Freezing
    from renaissance.recipe.start import SavedStart
    from renaissance.recipe.training import Optimiser
    from renaissance.registry import default_registry
    from renaissance.resolve import resolve
    from renaissance.training.freeze_map import freeze_map as map_of
    from renaissance.training.stages import LONG, stages_of
    from renaissance.uses import select_tasks

    recipe = None if path is None else load_recipe(path)
    if line is None and recipe is None:
        raise SpecError("There is nothing to draw; give a spec such as 'vit-base + bert-base', or --recipe FILE.")
    given: object = recipe.start if line is None and recipe is not None else line
    if isinstance(given, SavedStart):
        raise SpecError("This recipe starts from a saved model; give that model's spec too: freeze-map SPEC --recipe.")
    if isinstance(given, str):
        given = given_spec(given)
    tasks = {} if recipe is None else select_tasks(recipe, default_registry()).options
    assembly = assemble_on_meta(resolve(given, tasks))
    freezing = Freezing() if recipe is None else recipe.freezing
    stages = stages_of(assembly, freezing, steps=LONG if recipe is None else _steps(recipe))
    return map_of(assembly, stages, Optimiser() if recipe is None else recipe.optimiser)


def _steps(recipe: Recipe) -> int:
    """Return the updates of the training as far as the recipe tells without its data; LONG where it does not."""
    from renaissance.training.stages import EPOCH, LONG

    budget = recipe.budget
    if recipe.freezing.unit == "epoch":
        return EPOCH * budget.epochs if budget.epochs else LONG
    return budget.steps or (budget.samples or 0) // recipe.batch.size or LONG


# --- the table ------------------------------------------------------------------------------------------------------


def _print(found: FreezeMap) -> None:
    several = len(found.stages) > 1
    stages = _stages(found) if several else ["state"]
    rows = []
    for row in found.rows:
        cells = [_cell(cell) for cell in row.cells]
        adapters = f"{row.adapters:,}" if row.adapters else ""
        rows.append((row.part, row.layer, f"{row.parameters:,}", adapters, *cells))
    print_table(("part", "layer", "parameters", "adapters", *stages), rows, right=("parameters", "adapters"))
    print()
    total = sum(row.parameters for row in found.rows)
    for number, label in enumerate(_stages(found)):
        trained = sum(row.cells[number].trainable for row in found.rows)
        print(f"{f'{label}: ' if several else ''}{trained:,} of {total:,} parameters are trained")


def _stages(found: FreezeMap) -> list[str]:
    """Return when each stage begins, in words."""
    return [f"after {label}" if number else f"from {label}" for number, label in enumerate(found.stages)]


def _cell(cell: Cell) -> str:
    rates = ", ".join(f"x{rate:g}" for rate in cell.rates)
    return f"{MARKS[cell.state]} {rates}".rstrip()


# --- the drawing ----------------------------------------------------------------------------------------------------


ROW, LEFT, COLUMN, TOP = 18, 190, 190, 44


def drawing(found: FreezeMap) -> str:
    """Return a map as SVG: a row for each layer, a column for each stage, and a legend."""
    width = LEFT + COLUMN * len(found.stages) + 10
    height = TOP + ROW * len(found.rows) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, label in enumerate(_stages(found)):
        parts.append(_text(LEFT + COLUMN * number, TOP - 12, label))
    for index, row in enumerate(found.rows):
        y = TOP + ROW * index
        parts.append(_text(8, y + 12, f"{row.part} {row.layer}"))
        for number, cell in enumerate(row.cells):
            x = LEFT + COLUMN * number
            parts.append(
                f'<rect x="{x}" y="{y}" width="{COLUMN - 8}" height="{ROW - 2}" fill="{COLOURS[cell.state]}"/>'
            )
            rates = ", ".join(f"x{rate:g}" for rate in cell.rates)
            parts.append(_text(x + 5, y + 12, f"{cell.trainable:,} of {row.parameters:,} {rates}", colour="white"))
    for number, (state, words) in enumerate(MARKS.items()):
        x, y = 8 + number * 130, height - 24
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{COLOURS[state]}"/>')
        parts.append(_text(x + 17, y + 10, words))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: int, y: int, words: str, *, colour: str = "black") -> str:
    from xml.sax.saxutils import escape

    return f'<text x="{x}" y="{y}" fill="{colour}">{escape(words.rstrip())}</text>'


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written ({error.strerror}); choose another place.") from None
