"""Studies and collections by name, or from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from renaissance.errors import StudyError
from renaissance.plain_yaml import parse_yaml
from renaissance.spec import did_you_mean, explain, shown
from renaissance.studies.claims import Collection, validate_collection
from renaissance.studies.design import Study

BUILTIN = Path(__file__).parent / "builtin"
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Given:
    """A study or a collection as it was given: what it says, its bytes, and the word by which it is found again."""

    content: Study | Collection
    raw: bytes
    source: str


def names() -> list[str]:
    """Return the names of the studies and collections that ship with renaissance."""
    return sorted(path.stem for path in BUILTIN.glob("*.yaml"))


def load(place: str | Path) -> Given:
    """Return a study or a collection: the name of one that ships with renaissance, or a YAML file.

    Raises:
        StudyError: there is none, or it is wrong: with the path of the first fault and the nearest valid key.
        SpecError: the file is no plain YAML, or is a collection that is wrong.
    """
    path = Path(place)
    if path.suffix not in _SUFFIXES:
        path = BUILTIN / f"{place}.yaml"
        if str(place) not in names():
            hint = did_you_mean(str(place), names())
            raise StudyError(
                f"There is no study '{shown(place)}': give a .yaml file, or one of: {', '.join(names())}.{hint}"
            )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StudyError(f"The study '{shown(path)}' cannot be read: {error.strerror}.") from None
    data = parse_yaml(raw, what=path.name)
    if isinstance(data, dict) and "studies" in data:
        return Given(validate_collection(data), raw, str(place))
    try:
        return Given(Study.model_validate(data), raw, str(place))
    except ValidationError as error:
        raise StudyError(explain(error, Study.model_json_schema(), what=path.name)) from None


def load_study(place: str | Path) -> Given:
    """Return a study, and not a collection.

    Raises:
        StudyError: there is none, it is wrong, or it is a collection.
    """
    given = load(place)
    if isinstance(given.content, Collection):
        studies = ", ".join(given.content.studies)
        raise StudyError(f"'{given.source}' is a collection of studies; give one of them: {studies}.")
    return given
