"""Reports on disk: made from result files alone, so that the same files give the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from renaissance.durable import replacing, write_atomically
from renaissance.errors import OutputError
from renaissance.report import Written
from renaissance.report.arms import arms, reproduce, runs
from renaissance.report.blocks import Paragraph, Section
from renaissance.report.collection import collection_page
from renaissance.report.explained import explanations
from renaissance.report.facts import Results
from renaissance.report.gallery import gallery
from renaissance.report.measured import compute, curves, scores, variance
from renaissance.report.pictures import Picture, Pictures
from renaissance.report.reach import reach
from renaissance.report.rendering import Page, html, markdown
from renaissance.report.results import checked_claims, checked_results, read_results
from renaissance.report.verdicts import effects, hypothesis_told, notes, question, verdicts
from renaissance.report.wording import count

HTML, MARKDOWN, FIGURES, PICTURES = "report.html", "report.md", "figures", "pictures"


def write_study(folder: Path) -> Written:
    """Write the report of a study beside its results.json; see `renaissance.report.write`."""
    results, pictures = read_results(folder), Pictures(folder)
    return _written(folder, study_page(results, pictures), pictures.kept)


def write_studies(
    results: Mapping[str, Mapping[str, Any]],
    claims: Sequence[Mapping[str, Any]],
    folder: Path,
    named: tuple[str, str] = ("", ""),
) -> Written:
    """Write the report of several studies; see `renaissance.report.write_collection`."""
    found = {name: checked_results(given, what=f"the results of '{name}'") for name, given in results.items()}
    reports = {name: f"{quote(name)}/{HTML}" for name in found if (folder / name / HTML).is_file()}
    return _written(folder, collection_page(found, checked_claims(claims), reports, *named), [])


def study_page(results: Results, pictures: Pictures) -> Page:
    """Return the report of a study as a page."""
    study = results.study
    given = [part(results) for part in (question, verdicts, effects, scores, compute, reach, curves, arms, variance)]
    given += [part(results, pictures) for part in (explanations, gallery)]
    given += [part(results) for part in (runs, reproduce)]
    given.append(_with_pictures_left_out(notes(results), pictures))
    ended = sum(run.state == "done" for run in results.runs)
    return Page(
        kind="report of a study",
        title=study.name,
        asked=study.question,
        meta=f"Scope: {study.scope.rstrip('.')}. Preset: {study.preset}.",
        answer=next((hypothesis_told(found) for found in results.ranked), None),
        warning="" if study.complete else f"{count(ended)} of {count(len(results.runs))} runs are done.",
        version=study.version,
        footer=f"Made by renaissance {study.version} from results.json of the study {study.name} (preset "
        f"{study.preset}). Made again, it has the same bytes.",
        given=given,
    )


def _with_pictures_left_out(section: Section, pictures: Pictures) -> Section:
    if not pictures.left_out:
        return section
    said = f"Pictures that are missing, or for which the page has no room: {count(pictures.left_out)}."
    return Section(section.anchor, section.title, [*section.blocks, Paragraph(said, quiet=True)])


# --- files ------------------------------------------------------------------------------------------------------------


def _written(folder: Path, page: Page, pictures: Sequence[Picture]) -> Written:
    """Write the figures, and then what shows them."""
    figures = folder / FIGURES
    try:
        figures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{figures} cannot be written ({error.strerror}). Choose another folder.") from error
    paths = []
    for drawing in page.drawings:
        paths.append(figures / f"{drawing.name}.svg")
        write_atomically(paths[-1], drawing.standalone)
    for path in set(figures.glob("*.svg")) - set(paths):
        path.unlink()  # of a report before
    paths += _written_pictures(figures / PICTURES, pictures)
    write_atomically(folder / MARKDOWN, markdown(page))
    write_atomically(folder / HTML, html(page))
    return Written(folder / HTML, folder / MARKDOWN, tuple(paths))


def _written_pictures(folder: Path, pictures: Sequence[Picture]) -> list[Path]:
    if not pictures:
        shutil.rmtree(folder, ignore_errors=True)  # of a report before
        return []
    with replacing(folder) as staging:
        for picture in pictures:
            (staging / picture.file).write_bytes(picture.data)
    return [folder / picture.file for picture in pictures]
