"""Studies by name or from a file; whatever is wrong is said with what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from renaissance.errors import RenaissanceError, SpecError, StudyError
from renaissance.studies.claims import Collection
from renaissance.studies.library import BUILTIN, load, load_study, names

COLLECTION = "renaissance-2411"


def test_a_study_is_found_by_its_name_and_as_a_file() -> None:
    named, file = load("freezing-world"), load(BUILTIN / "freezing-world.yaml")
    assert named.content == file.content
    assert named.raw == file.raw


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(StudyError, match=r"There is no study 'freezing-wrld': .* Did you mean 'freezing-world'\?"):
        load("freezing-wrld")


@pytest.mark.parametrize("name", ["../../recipes/demo", "", "..", "builtin/freezing-world"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(StudyError, match="There is no study"):
        load(name)


def test_a_file_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot be read"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("name: x\nquestoin: Why?\n", StudyError, "unknown key 'questoin'. Did you mean 'question'?"),
        ("a: !!python/object:os.system x\n", SpecError, "study.yaml"),
        ("- name\n", StudyError, "study.yaml"),
        ("studies: []\nname: x\n", SpecError, "collection"),
    ],
)
def test_a_wrong_file_is_told_with_its_fault(
    tmp_path: Path, text: str, error: type[RenaissanceError], told: str
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(error) as caught:
        load(path)
    assert told in str(caught.value)


def test_a_collection_is_told_from_its_studies() -> None:
    collection = load(COLLECTION).content
    assert isinstance(collection, Collection)
    with pytest.raises(StudyError, match=f"'{COLLECTION}' is a collection of studies; give one of them: freezing"):
        load_study(COLLECTION)
    assert {COLLECTION, *collection.studies} <= set(names())
