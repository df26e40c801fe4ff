"""`evaluate`: measure a saved model on a data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from renaissance.cli.models import ModelPlace, Revision, Trust
from renaissance.cli.output import JsonFlag, note, print_json
from renaissance.cli.quiet import quiet
from renaissance.errors import CapabilityError, OutputError, RenaissanceError, SpecError
from renaissance.spec import shown

if TYPE_CHECKING:
    from renaissance.evaluation.leaks import Trained
    from renaissance.evaluation.splits import SplitScores

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
    model: ModelPlace,
    data: DataOption = None,
    task: Annotated[Names, typer.Option("--task", help="Measure this task; default: all that can be.")] = None,
    option: Annotated[
        Names, typer.Option("--option", metavar="KEY=VALUE", help="An option of the one --task, as 'by=itc'.")
    ] = None,
    split: Annotated[
        Names, typer.Option("--split", help="Measure on this split; default: all but those to train on.")
    ] = None,
    all_tasks: Annotated[
        bool, typer.Option("--all-tasks", help="Every task that can, on all prepared data below the folder --data.")
    ] = False,
    blind: Annotated[
        bool, typer.Option("--blind", help="Measure also on the images, and on the texts, of other samples.")
    ] = False,
    cascade: Annotated[
        bool, typer.Option("--cascade", help="Recall against FLOPs: ITC, the k best re-ranked by ITM, up to all.")
    ] = False,
    waive: Annotated[
        Names, typer.Option("--waive", help="A split that may share images with the training of a run.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help="Write the prediction files of tasks to this folder.", show_default=False),
    ] = None,
    on_bad_sample: Annotated[
        Literal["error", "skip"],
        typer.Option("--on-bad-sample", help="Images with captions that cannot be used: stop, or leave out and count."),
    ] = "error",
    revision: Revision = None,
    trust: Trust = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show both directions of recalls.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure a saved model on images with captions, on prepared data, or on the splits of a recipe's data."""
    _check(all_tasks=all_tasks, cascade=cascade, data=data, task=task, option=option, predictions=predictions)
    section: Any = data if all_tasks else _data(model, data)
    with quiet():
        import renaissance
        from renaissance.evaluation.evaluate import evaluate_all
        from renaissance.progress import Bars, closing

        loaded = renaissance.from_pretrained(model, revision=revision, trust=tuple(trust or ()))
        if cascade:
            from renaissance.cli.evaluating_cascade import print_cascade

            print_cascade(loaded, section, model, split, as_json=as_json, verbose=verbose)
            return
        how: dict[str, Any] = {
            "splits": split,
            "on_bad_sample": on_bad_sample,
            "blind": blind,
            "trained": None if data is None else _trained(model),
            "waive": tuple(waive or ()),
        }
        with closing(Bars()) as progress:
            if all_tasks:
                told = None if as_json else partial(_print, verbose=verbose, end="\n")
                found = evaluate_all(loaded, section, progress=progress, measured=told, **how)
            else:
                asked = {name: _options(option) for name in task or ()} or None
                found = renaissance.evaluate(loaded, section, tasks=asked, progress=progress, **how)
    if predictions is not None:
        _write_predictions(found, predictions)
    if as_json:
        print_json(_as_json(model, found))
    elif not all_tasks:
        _print(found, verbose=verbose)
    _tell_shared(found)
    _tell_left_out(found)


def _check(
    *, all_tasks: bool, cascade: bool, data: Path | None, task: Names, option: Names, predictions: Path | None
) -> None:
    """Refuse what does not go together.

    Raises:
        SpecError: saying what to leave out.
    """
    if all_tasks and (data is None or task):
        raise SpecError("--all-tasks measures by every task on all data below a folder: give --data, and no --task.")
    if cascade and (all_tasks or task or predictions is not None):
        raise SpecError("--cascade measures retrieval alone: leave out --task, --all-tasks and --predictions.")
    if option and len(task or ()) != 1:
        raise SpecError("--option is one of the task that is measured: give one --task, and its options.")


def _options(given: Sequence[str] | None) -> dict[str, Any]:
    """Return the options of a task; values are YAML.

    Raises:
        SpecError: one is no 'key=value'.
    """
    from renaissance.plain_yaml import parse_yaml

    options: dict[str, Any] = {}
    for each in given or ():
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise SpecError(f"'--option {shown(each)}' is no 'key=value'; write for example '--option by=itc'.")
        options[key] = parse_yaml(value.encode(), what=f"--option {shown(key)}")
    return options


def _trained(model: str) -> Trained | None:
    """Return the images that the model of a run was trained on; None, with a note, where they are not known."""
    from renaissance.data.cache import cache_folder
    from renaissance.evaluation.leaks import trained_by
    from renaissance.recipe import load_recipe
    from renaissance.registry import default_registry
    from renaissance.uses import reads_items, select_tasks

    recipes = (folder / "recipe.yaml" for folder in (Path(model), Path(model).parent))
    recipe = next((path for path in recipes if path.is_file()), None)
    unknown = "is not compared with the training data"
    if recipe is None:
        note(f"'{shown(model)}' is no folder with a recipe, so what is measured {unknown}.")
        return None
    told, registry = load_recipe(recipe), default_registry()
    try:
        return trained_by(told, cache_folder(), items=reads_items(select_tasks(told, registry), registry))
    except RenaissanceError as error:
        note(f"What is measured {unknown}: {error}")
        return None


def _as_json(model: str, found: Sequence[SplitScores]) -> dict[str, Any]:
    shared: list[Mapping[str, Any]] = [asdict(scores.shared) for scores in found if scores.shared is not None]
    return {
        "model": model,
        "splits": {scores.name: scores.sizes() for scores in found},
        "scores": [row for scores in found for row in scores.rows()],
        "overlap": shared,
        "skipped": _left_out(found),
    }


def _tell_shared(found: Sequence[SplitScores]) -> None:
    """Say on standard error which images were trained on, too."""
    for shared in (scores.shared for scores in found if scores.shared is not None):
        note(
            f"{shared.split}: {shared.images:,} of its {shared.total:,} images were trained on "
            f"({shared.level}{', waived' if shared.waived else ''}: {shared.reason})."
        )


def _print(found: Sequence[SplitScores], *, verbose: bool, end: str = "") -> None:
    """Print the table of scores at once, with `end` after it."""
    from renaissance.cli.scores import print_scores

    rows = [row for scores in found for row in scores.rows()]
    print_scores(rows, verbose=verbose)
    print(end=end, flush=True)
    if not rows:
        note("No item says what is right, so there are no scores; --predictions FOLDER writes what the model says.")


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
    raise SpecError(f"'{shown(model)}' is no folder with a recipe, so its data are not known. Say them with --data.")
