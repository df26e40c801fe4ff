"""`evaluate`: measure a saved model on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from renaissance.cli.output import JsonFlag, print_json
from renaissance.cli.quiet import quiet
from renaissance.errors import SpecError
from renaissance.spec import shown

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A model's folder, a run's folder, or the Hub's 'organisation/name'.", show_default=False
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Images with captions, or a recipe whose data are meant; default: the run's own.",
        show_default=False,
    ),
]
Names = list[str] | None


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("evaluate", epilog="Example: renaissance evaluate runs/demo --data ../my-pictures --task itm")(evaluate)


def evaluate(
    model: ModelArgument,
    data: DataOption = None,
    task: Annotated[Names, typer.Option("--task", help="Measure this task; default: all that can be.")] = None,
    split: Annotated[Names, typer.Option("--split", help="Measure on this split; default: all.")] = None,
    on_bad_sample: Annotated[
        Literal["error", "skip"], typer.Option("--on-bad-sample", help="What to do with a sample that cannot be used.")
    ] = "error",
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a Hub model.")] = None,
    trust: Annotated[Names, typer.Option("--trust", help="A plugin that a Hub model may use: xyz or xyz==1.2.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show both directions of recalls.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure a saved model on images with captions, or on the splits of a recipe's data."""
    section = _data(model, data)
    with quiet():
        import renaissance
        from renaissance.progress import Bars, closing

        loaded = renaissance.from_pretrained(model, revision=revision, trust=tuple(trust or ()))
        with closing(Bars()) as progress:
            found = renaissance.evaluate(
                loaded, section, tasks=task, splits=split, on_bad_sample=on_bad_sample, progress=progress
            )
    rows = [row for scores in found for row in scores.rows()]
    if as_json:
        sizes = {
            scores.split: {
                "images": scores.images,
                "captions": scores.captions,
                "distinct_texts": scores.distinct_texts,
            }
            for scores in found
        }
        print_json({"model": model, "splits": sizes, "scores": rows})
    else:
        from renaissance.cli.scores import print_scores

        print_scores(rows, verbose=verbose)


def _data(model: str, data: Path | None) -> Any:
    """Return what `renaissance.evaluate` measures on: a data section of a recipe, or a path."""
    from renaissance.recipe import load_recipe

    if data is not None:
        return load_recipe(data).data if data.suffix in (".yaml", ".yml") else data
    recipe = Path(model) / "recipe.yaml"
    if recipe.is_file():
        return load_recipe(recipe).data
    raise SpecError(f"'{shown(model)}' is no run's folder, so its data are not known. Say them with --data.")
