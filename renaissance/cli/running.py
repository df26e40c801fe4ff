"""`run`: from a recipe to a trained, measured and saved model, which is loaded back and measured again."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from renaissance.cli.output import JsonFlag, note, print_facts, print_json
from renaissance.cli.quiet import quiet
from renaissance.errors import DataError, ModelFileError, SampleError, SpecError
from renaissance.spec import shown

if TYPE_CHECKING:
    from renaissance.progress import Progress
    from renaissance.recipe import Recipe
    from renaissance.training.run import Run

OnBad = Annotated[
    Literal["error", "skip"] | None,
    typer.Option("--on-bad-sample", help="What to do with an image or caption that cannot be used."),
]
RecipeArgument = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a built-in recipe: demo.", show_default=False),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Images with captions, in place of the recipe's data.", show_default=False)
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="The run's folder; default: runs/NAME, runs/NAME-2 ...", show_default=False)
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, as 'budget.epochs=2'.")
]


def add_to(app: typer.Typer) -> None:
    """Add this group's commands."""
    example = (
        "Example: renaissance run recipes/pictures.yaml --data ../my-pictures --seed 1\n\n"
        "After Ctrl-C or a kill: the same line with --resume, and --out where it was given"
    )
    app.command("run", epilog=example)(run)


def run(
    recipe: RecipeArgument,
    data: DataOption = None,
    out: OutOption = None,
    seed: Annotated[int | None, typer.Option("--seed", help="In place of the recipe's.", show_default=False)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an unfinished run.")] = False,
    on_bad_sample: OnBad = None,
    set_: SetOption = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show every score.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train, evaluate and save what a recipe says; then load the model back and measure it again."""
    if recipe.endswith((".yaml", ".yml")) and data is None:
        _check_early(Path(recipe), set_ or ())
    with quiet():
        import renaissance
        from renaissance.progress import Bars, Silent, closing
        from renaissance.recipe import as_recipe

        chosen = changed(as_recipe(recipe, data=data, seed=seed), set_ or (), on_bad_sample)
        with closing(Bars() if _is_main_process() else Silent()) as progress:
            done = renaissance.run(chosen, out=out, resume=resume, progress=progress)
            if not _is_main_process():
                return
            checked = measured_again(done, progress)
    if as_json:
        print_json({"folder": str(done.folder), "model": str(done.model_folder), "loaded_back": checked, **done.scores})
    else:
        _report(done, checked, verbose)


def _check_early(path: Path, changes: Sequence[str]) -> None:
    """Show the faults of a recipe before torch is imported, which takes seconds."""
    from renaissance.recipe import load_recipe
    from renaissance.recipe.start import SavedStart
    from renaissance.registry import default_registry
    from renaissance.resolve import resolve
    from renaissance.uses import select_tasks

    recipe = changed(load_recipe(path), changes, None)
    tasks = select_tasks(recipe, default_registry())
    if not isinstance(recipe.start, SavedStart):
        resolve(recipe.start, tasks.options)


def changed(recipe: Recipe, changes: Sequence[str], on_bad_sample: str | None) -> Recipe:
    """Return a recipe with the given 'key.key=value' changes; values are YAML.

    Raises:
        SpecError: a change is no 'key=value', its key is not there, or the recipe is then wrong.
    """
    from renaissance.plain_yaml import parse_yaml
    from renaissance.recipe import validate_recipe

    tree: dict[str, Any] = recipe.dump()
    if on_bad_sample is not None:
        tree["on_bad_sample"] = on_bad_sample
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals or not path:
            raise SpecError(f"'--set {shown(change)}' is no 'key=value'; write for example '--set budget.epochs=2'.")
        *above, last = path.split(".")
        node = tree
        for key in above:
            inner = node.setdefault(key, {})
            if not isinstance(inner, dict):
                raise SpecError(f"'--set {shown(change)}': '{shown(key)}' holds a value, and no keys below it.")
            node = inner
        node[last] = parse_yaml(value.encode(), what=f"--set {shown(path)}")
    return validate_recipe(tree)


def measured_again(done: Run, progress: Progress) -> dict[str, Any] | None:
    """Load the saved model of a run, measure one task on one split, and compare with what the run measured.

    Returns None where the run measured nothing that can be measured again.

    Raises:
        ModelFileError: a score differs, so what was saved is not what was trained.
    """
    import renaissance

    model = renaissance.from_pretrained(done.model_folder).to(_device())
    cheapest = _cheapest(done)
    if cheapest is None:
        return None
    split, task = cheapest
    try:
        measured = renaissance.evaluate(
            model, done.recipe.data, tasks=[task], splits=[split], batch_size=done.recipe.evaluation.batch_size,
            on_bad_sample=done.recipe.on_bad_sample, progress=progress,
        )  # fmt: skip
    except (DataError, SampleError) as error:
        if done.recipe.store is None:
            raise
        progress.say(f"Not measured again: the run read its images from the store, and now {error}")
        return None
    again = {row["name"]: row["value"] for scores in measured for row in scores.rows()}
    before = {
        row["name"]: row["value"]
        for row in done.scores["scores"]
        if (row["model"], row["split"], row["task"]) == ("trained", split, task) and "data" not in row
    }
    if again != before:
        name = next(name for name in before if again.get(name) != before[name])
        raise ModelFileError(
            f"The model loaded from '{done.model_folder}' has {task} {name} {again.get(name)} on '{split}', "
            f"and the trained one had {before[name]}; do not use it, and report this."
        )
    return {"split": split, "task": task, "scores": again, "equal": True}


def _cheapest(done: Run) -> tuple[str, str] | None:
    """Return the split and the task that cost least to measure again: ITM if there is, on the smallest split."""
    from renaissance.recipe.data import ImagesData

    own = [row for row in done.scores["scores"] if row["model"] == "trained" and "data" not in row]
    measured = {(row["split"], row["task"]) for row in own}
    data = done.recipe.data
    # which samples a 'seen' split keeps depends on those that were set aside in training
    moving: set[str] = set()
    if isinstance(data, ImagesData) and done.recipe.evaluation.every is not None:
        moving = {name for name, split in data.splits.items() if split.seen}
    sizes = done.scores["splits"]
    still = [pair for pair in measured if pair[0] not in moving]
    return min(still, key=lambda pair: (pair[1] != "itm", sizes[pair[0]]["captions"], pair), default=None)


def _device() -> Any:
    from accelerate import PartialState

    return PartialState().device


def _is_main_process() -> bool:
    """Whether this process is to report; torchrun numbers those that it starts."""
    return os.environ.get("RANK", "0") == "0"


def _report(done: Run, checked: dict[str, Any] | None, verbose: bool) -> None:
    from renaissance.cli.scores import print_run_scores

    print()
    print_run_scores(done.scores, verbose=verbose)
    print()
    if checked is not None:
        print(f"Loaded back: its {checked['task']} scores on '{checked['split']}' equal the trained model's.")
    if done.scores["skipped"]:
        note(f"Samples left out: {len(done.scores['skipped']):,}; scores.json lists them.")
    seconds = done.scores["seconds"]
    training, evaluation = seconds.get("training", 0.0), seconds.get("evaluation", 0.0)
    others = [f"{name} {value:.0f} s" for name, value in seconds.items() if name not in ("training", "evaluation")]
    print_facts(
        [
            ("time", f"training {training:.0f} s, evaluation {evaluation:.0f} s, {', '.join(others)}"),
            ("compute", _compute(done.scores["compute"])),
            ("run", str(done.folder)),
            ("model", str(done.model_folder)),
            ("scores", str(done.folder / "scores.json")),
            ("log", str(done.folder / "metrics.jsonl")),
            ("ledger", str(done.folder / "ledger.json")),
        ]
    )


def _compute(compared: Mapping[str, int | None]) -> str:
    """Return what a training took, and how much of what it would take with nothing frozen."""
    own, whole = compared["as run, store built"], compared["nothing frozen"]
    share = f", {own / whole:.0%} of what it takes with nothing frozen" if own is not None and whole else ""
    return f"{(own or 0) / 1e9:,.1f} GFLOP{share}"
