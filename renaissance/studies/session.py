"""`renaissance.study`: from a study's name to its runs, verdicts and report, in one folder that may be gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from renaissance.errors import MissingPackageError, StudyError
from renaissance.progress import Progress, Silent
from renaissance.report import write, write_collection
from renaissance.studies.arms import Design, expand
from renaissance.studies.claims import Collection, judge
from renaissance.studies.design import Study
from renaissance.studies.folder import StudyFolder
from renaissance.studies.keeping import Keep, give_up_models
from renaissance.studies.library import Given, load, load_study
from renaissance.studies.linting import check_design
from renaissance.studies.looking import look, shown_runs
from renaissance.studies.runner import Outcome, run_study
from renaissance.studies.trials import trials_of
from renaissance.studies.workers import LocalWorkers, Workers

try:
    from renaissance.studies.analysis import analyse
    from renaissance.studies.planning import check_ready
except ModuleNotFoundError as error:
    raise MissingPackageError(
        f"Studies need the package {error.name}. Try: pip install 'renaissance-vl[study]'"
    ) from None

Launcher = Literal["local", "ray"]
DEFAULT_PRESET = "cpu"


@dataclass(frozen=True, slots=True)
class StudyRun:
    """A study that was run: its folder, what became of its runs, what is in its results.json, and its report."""

    folder: Path
    outcome: Outcome
    results: Mapping[str, Any]
    report: Path


@dataclass(frozen=True, slots=True)
class CollectionRun:
    """A collection that was run: its folder, its studies, the claims with their verdicts, and its report."""

    folder: Path
    studies: Mapping[str, StudyRun]
    claims: tuple[Mapping[str, Any], ...]
    report: Path


def study(
    place: str | Path,
    *,
    preset: str = DEFAULT_PRESET,
    out: str | Path | None = None,
    jobs: int = 1,
    launcher: Launcher = "local",
    data: str | Path | None = None,
    retry_failed: bool = False,
    keep: Keep = "models",
    progress: Progress | None = None,
) -> StudyRun | CollectionRun:
    """Run what is left of a study or a collection, and write its results and its report.

    place: a YAML file, or the name of one that ships with renaissance ("freezing-world"). out: default
    runs/study-<name>-<preset>; runs that are done there are never repeated. jobs: runs at a time. data: the folder of
    images for studies that name none; of a collection, studies that need none do not read it. keep: "results" removes
    the weights of a run when no further run and no look at them needs them; they are made again where one does.

    Raises:
        StudyError: the study is wrong, its arms are unequal, its seeds do not suffice, or its results were changed;
            nothing was run.
        StoppedError: Ctrl-C or SIGTERM stopped it; the same call goes on.
    """
    given = load(place)
    told = progress or Silent()
    how: dict[str, Any] = {"jobs": jobs, "launcher": launcher, "retry_failed": retry_failed, "keep": keep}
    how["progress"] = told
    if isinstance(given.content, Study):
        return _run(given, preset, _folder(given.content.name, preset, out), data=data, **how)
    collection = given.content
    root = _folder(collection.name, preset, out).path
    done: dict[str, StudyRun] = {}
    for one in (load_study(name) for name in collection.studies):
        assert isinstance(one.content, Study)
        if preset not in one.content.presets or not one.content.presets[preset].runs_here:
            told.say(f"'{one.content.name}' has nothing to run here at preset '{preset}'")
            continue
        told.say(f"Study '{one.content.name}'")
        done[one.content.name] = _run(
            one,
            preset,
            StudyFolder(root / one.content.name),
            data=data if needs_data(one.content) else None,
            **how,
        )
    results = {name: run.results for name, run in done.items()}
    claims = tuple(judge(collection, results))
    named = {"name": collection.name, "about": collection.about}
    return CollectionRun(root, done, claims, write_collection(results, claims, root, **named).html)


def report(place: str | Path, *, preset: str = DEFAULT_PRESET, out: str | Path | None = None) -> Path:
    """Analyse what is there of a study or a collection once more, and write its report; return the HTML file.

    Raises:
        StudyError: nothing of it was run there, or its results were changed.
    """
    given = load(place)
    if isinstance(given.content, Study):
        folder = _folder(given.content.name, preset, out)
        analyse(designed(given.content, preset, folder), _begun(folder))
        return write(folder.path).html
    root = _folder(given.content.name, preset, out).path
    results = dict(_results(given.content, preset, root))
    if not results:
        raise StudyError(f"No study of '{given.content.name}' was run in '{root}'; 'renaissance study run' does.")
    named = {"name": given.content.name, "about": given.content.about}
    return write_collection(results, judge(given.content, results), root, **named).html


def progress_of(
    place: str | Path, *, preset: str = DEFAULT_PRESET, out: str | Path | None = None
) -> list[dict[str, Any]]:
    """Return how far a study is, or each study of a collection: its arms with their runs, and what failed.

    Raises:
        StudyError: there is no such study or preset.
    """
    given = load(place)
    if isinstance(given.content, Study):
        return [_progress(given.content, preset, _folder(given.content.name, preset, out))]
    root = _folder(given.content.name, preset, out).path
    contents = [load_study(name).content for name in given.content.studies]
    return [
        _progress(one, preset, StudyFolder(root / one.name))
        for one in contents
        if isinstance(one, Study) and preset in one.presets
    ]


def _progress(study: Study, preset: str, folder: StudyFolder) -> dict[str, Any]:
    design = designed(study, preset, folder)
    records = {run: folder.record(run) for run in design.runs}
    rows = []
    for (arm, stage), ids in design.runs_of.items():
        ended = [records[run]["state"] if records[run] else "to come" for row in ids for run in row]  # type: ignore[index]
        counts = {state: ended.count(state) for state in ("done", "failed", "to come")}
        rows.append({"arm": arm, "stage": stage, **counts})
    trials = {arm.name: found for arm in design.arms if (found := trials_of(folder, arm.name))}
    records |= {one: folder.record(one) for found in trials.values() for trial in found if (one := trial.failed)}
    failed = [
        {"id": run, **record["error"]} for run, record in records.items() if record is not None and record["error"]
    ]
    searched = [
        {"arm": arm, "trials": len(found), "failed": sum(trial.failed is not None for trial in found)}
        for arm, found in trials.items()
    ]
    facts = {"study": study.name, "preset": preset, "folder": str(folder.path), "arms": rows}
    return {**facts, "search": searched, "failed": failed}


def designed(study: Study, preset: str, folder: StudyFolder) -> Design:
    """Return the design of a study as its folder has it: as it was run there, with the settings that its search found.

    Raises:
        StudyError: the folder holds another study; its arms are unequal, or it cannot be judged.
    """
    if folder.study.is_file():  # a file, or one that ships, may have been changed since
        kept = load_study(folder.study).content
        if kept.name != study.name:
            raise StudyError(f"'{folder.path}' holds the study '{kept.name}', and not '{study.name}'; give its --out.")
        assert isinstance(kept, Study)
        study = kept
    design = expand(study, preset, searched=folder.designed().get("searched", {}))
    check_design(design)
    return design


def needs_data(study: Study) -> bool:
    """Return whether a stage of a study reads a folder that only `data` can name."""
    kinds = ("images", "prepared")
    sections: list[Any] = [recipe.get("data") for recipe in study.stages.values()]
    return any(isinstance(one, dict) and one.get("kind") in kinds and not one.get("path") for one in sections)


def _run(
    given: Given,
    preset: str,
    folder: StudyFolder,
    *,
    jobs: int,
    launcher: Launcher,
    data: str | Path | None,
    retry_failed: bool,
    keep: Keep,
    progress: Progress,
) -> StudyRun:
    assert isinstance(given.content, Study)
    design = expand(given.content, preset)
    check_ready(design)
    if not design.size.runs_here:
        raise StudyError(
            f"The preset '{preset}' of '{given.content.name}' is for other machines: 'renaissance study plan' costs it."
        )
    with folder.writing():
        folder.keep_study(design, given.raw)
    if design.study.search is not None:
        from renaissance.studies.search import tuned

        found = tuned(
            design,
            folder,
            workers=workers_of(launcher, jobs),
            progress=progress,
            data=data,
            retry_failed=retry_failed,
            keep=keep,
        )
        design = expand(given.content, preset, searched=found)
        check_design(design)
    looks = design.size.verdicts != "none"
    outcome = run_study(
        design,
        folder,
        workers=workers_of(launcher, jobs),
        progress=progress,
        data=data,
        retry_failed=retry_failed,
        keep=keep,
        shown=shown_runs(design) if looks else (),
    )
    if outcome.complete and looks:
        with folder.writing():
            needed = look(design, folder, progress)
            if keep == "results":
                give_up_models(design, folder, outcome.done, but=needed)
    results = analyse(design, folder)
    return StudyRun(folder.path, outcome, results, write(folder.path).html)


def workers_of(launcher: Launcher, jobs: int) -> Workers:
    """Return what does the runs.

    Raises:
        MissingPackageError: Ray is not installed.
    """
    if launcher == "local":
        return LocalWorkers(jobs)
    from renaissance.studies.ray_workers import RayWorkers

    return RayWorkers(jobs)


def _folder(name: str, preset: str, out: str | Path | None) -> StudyFolder:
    return StudyFolder(out if out is not None else Path("runs") / f"study-{name}-{preset}")


def _begun(folder: StudyFolder) -> StudyFolder:
    if not folder.study.is_file():
        raise StudyError(f"There is no study in '{folder.path}'; 'renaissance study run' begins one.")
    return folder


def _results(collection: Collection, preset: str, root: Path) -> Any:
    """Yield the results of the studies of a collection that were begun below `root`, analysed anew."""
    for name in collection.studies:
        folder = StudyFolder(root / name)
        if folder.study.is_file():
            content = load_study(name).content
            assert isinstance(content, Study)
            yield name, analyse(designed(content, preset, folder), folder)
            write(folder.path)
