"""results.json, read: what the analysis of a study wrote, checked before a word of it is told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from renaissance.errors import StudyError
from renaissance.report.facts import Claim, Results
from renaissance.spec import explain, shown

RESULTS = "results.json"
FORMAT = 1
AGAIN = "Make it again from the runs: renaissance study report STUDY."


def read_results(folder: Path) -> Results:
    """Return what is in the results.json of a study's folder.

    Raises:
        StudyError: there is none, it is of a newer version, or it is not what an analysis writes; the key is named.
    """
    path = folder / RESULTS
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StudyError(f"{folder} has no {RESULTS}, from which a report is made. {AGAIN}") from None
    except (OSError, ValueError) as error:  # no text in UTF-8, no JSON
        raise StudyError(f"{path} cannot be read ({shown(error)}). {AGAIN}") from None
    return checked_results(given, what=str(path))


def checked_results(given: object, *, what: str) -> Results:
    """Return results from what JSON holds; `what` names it in errors.

    Raises:
        StudyError: it is of a newer version, or not what an analysis writes; the key is named.
    """
    if not isinstance(given, Mapping):
        raise StudyError(f"{what} holds no section of keys. {AGAIN}")
    found = given.get("format")
    if type(found) is not int or found < 1:
        raise StudyError(f"{what}: 'format' is {shown(found)}, and it must be {FORMAT}. {AGAIN}")
    if found > FORMAT:
        raise StudyError(f"{what}: 'format' is {found}, and this version reads {FORMAT}. Update renaissance-vl.")
    try:
        return Results.model_validate_json(_as_json(given))
    except ValidationError as error:
        raise StudyError(f"{explain(error, Results.model_json_schema(), what=what)} {AGAIN}") from None
    except (TypeError, ValueError) as error:  # a number that JSON has not, an object that is no data
        raise StudyError(f"{what} holds what no JSON has ({shown(error)}). {AGAIN}") from None


def checked_claims(given: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Return the claims of a collection, as they were judged.

    Raises:
        StudyError: they are not what judging gives; the key is named.
    """
    try:
        return TypeAdapter(list[Claim]).validate_json(json.dumps(list(given), allow_nan=False))
    except ValidationError as error:
        where = explain(error, TypeAdapter(list[Claim]).json_schema(), what="claims")
        raise StudyError(f"{where} Judge them again, from the results of the studies.") from None


def _as_json(given: Mapping[str, Any]) -> str:
    return json.dumps(given, allow_nan=False)
