"""The report of a study: one HTML file that asks nothing of a network, and the same as Markdown with figures.

It is made of result files alone, so that the same files give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.errors import MissingPackageError

__all__ = ["Written", "write", "write_collection"]


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: the page, the same as Markdown, and the files in `figures` that the Markdown shows."""

    html: Path
    markdown: Path
    figures: tuple[Path, ...]


def write(folder: str | Path) -> Written:
    """Write the report of a study into its folder, from its results.json and the explanations that this names.

    What was there of a report before is replaced. Pictures are made small; those that are missing, or for which one
    file has no room, are left out, and that is said.

    Raises:
        StudyError: there is no results.json, a newer version wrote it, or it is not what an analysis writes: the key
            is named.
        MissingPackageError: the figures need the extra `study`.
        OutputError: the report cannot be written.
    """
    return _with_figures(lambda writing: writing.write_study(Path(folder)))


def write_collection(
    results: Mapping[str, Mapping[str, Any]],
    claims: Sequence[Mapping[str, Any]],
    folder: str | Path,
    *,
    name: str = "",
    about: str = "",
) -> Written:
    """Write one report of several studies into a folder: the verdicts on the claims, then those of each study.

    results: the content of results.json by the study's name; claims: as `renaissance.studies.claims.judge` gives them;
    name, about: of the collection, for the head of the page.

    Raises:
        StudyError: results or claims are not what an analysis writes: the key is named.
        MissingPackageError: the figures need the extra `study`.
        OutputError: the report cannot be written.
    """
    return _with_figures(lambda writing: writing.write_studies(results, claims, Path(folder), (name, about)))


def _with_figures(write_with: Callable[[Any], Written]) -> Written:
    try:
        from renaissance.report import writing
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"The figures of reports need the package {error.name}. Try: pip install 'renaissance-vl[study]'"
        ) from None
    return write_with(writing)
