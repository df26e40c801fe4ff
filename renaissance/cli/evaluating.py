"""`evaluate`: measure a saved model on a data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from renaissance.cli.output import JsonFlag, note, print_json
from renaissance.cli.quiet import quiet
from renaissance.errors import CapabilityError, OutputError, SpecError
from renaissance.spec import shown

if TYPE_CHECKING:
    from renaissance.evaluation.evaluate import SplitScores

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
SHOWN = 5


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command("evaluate", epilog="Example: renaissance evaluate runs/demo --data ../my-pictures --task itm")(evaluate)


def evaluate(
    model: ModelArgument,
    data: DataOption = None,
    task: Annotated[Names, typer.Option("--task", help="Measure this task; default: all that can be.")] = None,
    split: Annotated[
        Names, typer.Option("--split", help="Measure on this split; default: all but those to train on.")
    ] = None,
    all_tasks: Annotated[
        bool, typer.Option("--all-tasks", help="Every task that can, on all prepared data below the folder --data.")
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help="Write the prediction files of tasks to this folder.", show_default=False),
    ] = None,
    on_bad_sample: Annotated[
        Literal["error", "skip"],
        typer.Option("--on-bad-sample", help="Images with captions that cannot be used: stop, or leave out and count."),
    ] = "error",
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a Hub model.")] = None,
    trust: Annotated[Names, typer.Option("--trust", help="A plugin that a Hub model may use: xyz or xyz==1.2.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show both directions of recalls.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure a saved model on images with captions, on prepared data, or on the splits of a recipe's data."""
    if all_tasks and (data is None or task):
        raise SpecError("--all-tasks measures by every task on all data below a folder: give --data, and no --task.")
    section: Any = data if all_tasks else _data(model, data)
    with quiet():
        import renaissance
        from renaissance.progress import Bars, closing

        loaded = renaissance.from_pretrained(model, revision=revision, trust=tuple(trust or ()))
        with closing(Bars()) as progress:
            if all_tasks:
                from renaissance.evaluation.evaluate import evaluate_all

                found = evaluate_all(
                    loaded,
                    section,
                    splits=split,
                    on_bad_sample=on_bad_sample,
                    progress=progress,
                    measured=None if as_json else partial(_print, verbose=verbose, end="\n"),
                )
            else:
                found = renaissance.evaluate(
                    loaded, section, tasks=task, splits=split, on_bad_sample=on_bad_sample, progress=progress
                )
    if predictions is not None:
        _write_predictions(found, predictions)
    if as_json:
        sizes = {"/".join(filter(None, (scores.data, scores.split))): scores.sizes() for scores in found}
        rows = [row for scores in found for row in scores.rows()]
        print_json({"model": model, "splits": sizes, "scores": rows, "skipped": _left_out(found)})
    elif not all_tasks:
        _print(found, verbose=verbose)
    _tell_left_out(found)


def _print(found: Sequence[SplitScores], *, verbose: bool, end: str = "") -> None:
    """Print the table of scores at once, with `end` after it."""
    from renaissance.cli.scores import print_scores

    print_scores([row for scores in found for row in scores.rows()], verbose=verbose)
    print(end=end, flush=True)


def _left_out(found: Sequence[SplitScores]) -> list[str]:
    """Return a line for each sample that was left out; one that several splits tell of is one."""
    lines = (f"{scores.data}: {line}" if scores.data else line for scores in found for line in scores.skipped)
    return list(dict.fromkeys(lines))


def _tell_left_out(found: Sequence[SplitScores]) -> None:
    """Say on standard error how many samples were left out, and which are the first."""
    lines = _left_out(found)
    for line in lines[:SHOWN]:
        note(f"left out: {line}")
    if lines:
        more = f", of which {SHOWN} are shown; --json lists them" if len(lines) > SHOWN else ""
        note(f"Samples left out: {len(lines):,}{more}.")


def _write_predictions(found: Sequence[SplitScores], folder: Path) -> None:
    """Write a JSON file for each task and split that has predictions.

    Raises:
        OutputError: it cannot be written.
        CapabilityError: no task that was measured has any.
    """
    from renaissance.durable import write_atomically

    files = {
        "-".join(filter(None, (scores.data, scores.split, task))) + ".json": rows
        for scores in found
        for task, rows in scores.submissions.items()
        if rows
    }
    if not files:
        raise CapabilityError("None of the tasks that were measured has a prediction file. Leave --predictions out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in files.items():
            write_atomically(folder / name, json.dumps(rows, ensure_ascii=False) + "\n")
    except OSError as error:
        raise OutputError(f"'{folder}' cannot be written ({error.strerror or error}). Choose another folder.") from None


def _data(model: str, data: Path | None) -> Any:
    """Return what `renaissance.evaluate` measures on: a data section of a recipe, or a path."""
    from renaissance.recipe import load_recipe

    if data is not None:
        return load_recipe(data).data if data.suffix in (".yaml", ".yml") else data
    recipe = Path(model) / "recipe.yaml"
    if recipe.is_file():
        return load_recipe(recipe).data
    raise SpecError(f"'{shown(model)}' is no run's folder, so its data are not known. Say them with --data.")
