"""`study`: plan, run, look at and report a controlled study, or a collection of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from renaissance.cli.output import JsonFlag, note, print_facts, print_json, print_table
from renaissance.cli.quiet import quiet
from renaissance.errors import MissingPackageError, RenaissanceError

if TYPE_CHECKING:
    from renaissance.studies.planning import Forecast, Plan
    from renaissance.studies.session import CollectionRun, StudyRun


def _studies(incomplete: str) -> list[str]:
    """Return the names that a shell may complete."""
    from renaissance.studies.library import names

    return [name for name in names() if name.startswith(incomplete)]


def _presets(context: typer.Context, incomplete: str) -> list[str]:
    """Return the presets of the study that is named, for a shell to complete."""
    from renaissance.studies.design import Study
    from renaissance.studies.library import load

    try:
        content = load(context.params.get("study", "")).content
    except RenaissanceError:
        return []
    return [name for name in (content.presets if isinstance(content, Study) else ()) if name.startswith(incomplete)]


StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY",
        help="A YAML file, or a name that 'study list' shows.",
        show_default=False,
        autocompletion=_studies,
    ),
]
PresetOption = Annotated[
    str,
    typer.Option("--preset", help="At which size: smoke, cpu, paper, or one of its own.", autocompletion=_presets),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="The study's folder; default: runs/study-NAME-PRESET.", show_default=False),
]
PACKAGES = ("scipy", "statsmodels", "optuna", "matplotlib")  # of the extra
GIGA = 1e9
HOUR = 3600
LARGE = 1e5  # from here on a number is shown by its first digits: FLOPs


class RunsByDefault(TyperGroup):
    """A group in which `study NAME` means `study run NAME`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is meant, its name, and the words after it."""
        known = bool(args) and (args[0] in self.commands or args[0].startswith("-"))
        return super().resolve_command(ctx, args if known else ["run", *args])


def add_to(study: typer.Typer) -> None:
    """Add this group's commands."""
    study.command("list", epilog="Example: renaissance study list")(list_studies)
    study.command("plan", epilog="Example: renaissance study plan freezing-world --preset cpu")(plan)
    example = (
        "Example: renaissance study run freezing-world --preset smoke --jobs 2\n\n"
        "After Ctrl-C or a kill: the same line again; runs that are done are never repeated"
    )
    study.command("run", epilog=example)(run)
    study.command("status", epilog="Example: renaissance study status freezing-world")(status)
    study.command("report", epilog="Example: renaissance study report freezing-world")(report)


def list_studies(as_json: JsonFlag = False) -> None:
    """List the studies that ship with renaissance, with their questions and sizes."""
    with quiet(), _study_extra():
        from renaissance.studies.design import Study
        from renaissance.studies.library import load, names

        found = {name: load(name).content for name in names()}
    facts: list[dict[str, Any]] = [
        {
            "name": name,
            "question": one.question,
            "presets": {size: preset.about for size, preset in one.presets.items()},
        }
        if isinstance(one, Study)
        else {"name": name, "about": one.about, "studies": list(one.studies)}
        for name, one in found.items()
    ]
    if as_json:
        print_json({"studies": facts})
        return
    rows = [
        (one["name"], one["question"], ", ".join(one["presets"]))
        if "presets" in one
        else (one["name"], one["about"], f"of {', '.join(one['studies'])}")
        for one in facts
    ]
    print_table(("study", "question", "presets"), rows)


def plan(study: StudyArgument, preset: PresetOption = "cpu", as_json: JsonFlag = False) -> None:
    """Check a study, and show its arms, runs, seeds, and what they would take; nothing is trained."""
    with quiet(), _study_extra():
        from renaissance.studies.arms import expand
        from renaissance.studies.design import Study
        from renaissance.studies.library import load, load_study
        from renaissance.studies.planning import plan as planned

        given = load(study).content
        studies = [given] if isinstance(given, Study) else [load_study(name).content for name in given.studies]
        found = [one for one in studies if isinstance(one, Study)]
        plans = [planned(expand(one, preset)) for one in found if preset in one.presets]
        if not plans:
            expand(found[0], preset)  # says which presets there are
    if as_json:
        print_json({"plans": [one.facts() for one in plans]})
        return
    for one in plans:
        _print_plan(one)


def run(
    study: StudyArgument,
    preset: PresetOption = "cpu",
    out: OutOption = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs at a time; threads are shared among them.")] = 1,
    launcher: Annotated[
        Literal["local", "ray"], typer.Option("--launcher", help="Processes here, or a Ray cluster.")
    ] = "local",
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Images with captions, for studies that name none.", show_default=False),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run again what failed before.")] = False,
    keep: Annotated[
        Literal["models", "results"],
        typer.Option("--keep", help="results: remove weights that no run and no section of the report needs any more."),
    ] = "models",
    as_json: JsonFlag = False,
) -> None:
    """Do the runs of a study that are not done yet; then judge its hypotheses and write its report."""
    with quiet(), _study_extra():
        from renaissance.progress import Bars
        from renaissance.studies.session import StudyRun
        from renaissance.studies.session import study as run_study

        done = run_study(
            study,
            preset=preset,
            out=out,
            jobs=jobs,
            launcher=launcher,
            data=data,
            retry_failed=retry_failed,
            keep=keep,
            progress=Bars(),
        )
    if as_json:
        print_json(dict(done.results) if isinstance(done, StudyRun) else {"claims": [dict(one) for one in done.claims]})
    elif isinstance(done, StudyRun):
        _print_verdicts(done)
    else:
        _print_claims(done)


def status(
    study: StudyArgument, preset: PresetOption = "cpu", out: OutOption = None, as_json: JsonFlag = False
) -> None:
    """Show which runs of a study are done, failed, or still to come."""
    with quiet(), _study_extra():
        from renaissance.studies.session import progress_of

        found = progress_of(study, preset=preset, out=out)
    if as_json:
        print_json({"studies": found})
        return
    for one in found:
        print_facts([("study", one["study"]), ("folder", one["folder"])])
        columns = ("arm", "stage", "done", "failed", "to come")
        print_table(columns, [[str(row[name]) for name in columns] for row in one["arms"]], right=columns[2:])
        if one["search"]:
            searched = ("arm", "trials", "failed")
            print_table(searched, [[str(row[name]) for name in searched] for row in one["search"]], right=searched[1:])
        for failed in one["failed"]:
            note(f"{failed['id']} failed: {failed['type']}: {failed['message']}")


def report(
    study: StudyArgument, preset: PresetOption = "cpu", out: OutOption = None, as_json: JsonFlag = False
) -> None:
    """Judge what is there of a study once more, and write its report: report.html, report.md and figures."""
    with quiet(), _study_extra():
        from renaissance.studies.session import report as write

        page = write(study, preset=preset, out=out)
    if as_json:
        print_json({"report": str(page)})
        return
    print(page)


# --- what is printed --------------------------------------------------------------------------------------------------


def _print_plan(plan: Plan) -> None:
    study, size = plan.design.study, plan.design.size
    print_facts(
        [
            ("study", f"{study.name}, preset {plan.design.preset}: {size.about}"),
            ("question", study.question),
            ("primary", next(one.says for one in study.hypotheses if one.name == study.primary)),
            ("verdicts", size.verdicts),
            ("seeds", ", ".join(f"{count} of '{stage}'" for stage, count in study.seeds.items())),
            ("seeds needed", "not known: nothing is expected" if plan.needed is None else str(plan.needed)),
        ]
    )
    print_table(
        ("arm", "stage", "runs", "updates", "parameters", "trained", "GFLOP", "minutes", "GiB"),
        [_planned(one) for one in plan.forecasts],
        right=("runs", "updates", "parameters", "trained", "GFLOP", "minutes", "GiB"),
    )
    hours = "" if plan.seconds is None else f", about {plan.seconds / HOUR:.1f} hours one after the other"
    note(f"{plan.runs} runs in all (arms share those that are the same){hours}; with a store frozen towers cost less")
    for reason in dict.fromkeys(one.reason for one in plan.forecasts if one.reason):
        note(f"not counted: {reason}")


def _planned(one: Forecast) -> Sequence[str]:
    def shown(value: float | None, form: str) -> str:
        return "?" if value is None else format(value, form)

    return (
        one.arm,
        one.stage,
        str(one.runs),
        shown(one.updates, ",d"),
        shown(one.parameters, ",d"),
        shown(one.trainable, ",d"),
        shown(None if one.flops is None else one.flops / GIGA, ",.0f"),
        shown(None if one.seconds is None else one.seconds / 60, ".1f"),
        shown(None if one.memory is None else one.memory / 2**30, ".2f"),
    )


def _print_verdicts(done: StudyRun) -> None:
    _print_hypotheses(done.results)
    for line in done.results["notes"]:
        note(line)
    print_facts([("folder", str(done.folder)), ("report", str(done.report))])


def _print_hypotheses(results: Mapping[str, Any]) -> None:
    rows = list(_hypotheses(results))
    print_table(("hypothesis", "verdict", "difference", "95% interval", "p (Holm)", "seeds"), rows)


def _hypotheses(results: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for one in results["hypotheses"]:
        estimate = one["estimate"] or {}
        word = one["verdict"] if one["confirmatory"] else f"{one['verdict']} (exploratory)"
        low, high = _number(estimate.get("low")), _number(estimate.get("high"))
        interval = f"{low} to {high}" if low and high else ""
        yield one["name"], word, _number(estimate.get("mean")), interval, _number(one["p_holm"], ".3g"), str(one["n"])


def _number(value: float | None, form: str = ".2f") -> str:
    """Return a number as a cell; one seed alone has no interval."""
    if value is None:
        return ""
    return format(value, form if abs(value) < LARGE else ".3g")


def _print_claims(done: CollectionRun) -> None:
    rows = [(str(one["number"]), one["verdict"], one["claim"], one["reason"]) for one in done.claims]
    if rows:
        print_table(("claim", "verdict", "what it says", "why"), rows)
    print_facts([("folder", str(done.folder)), ("report", str(done.report))])


@contextmanager
def _study_extra() -> Iterator[None]:
    """Say which extra is missing where a package of it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in PACKAGES:
            raise
        raise MissingPackageError(f"Studies need '{package}': pip install 'renaissance-vl[study]'.") from None
