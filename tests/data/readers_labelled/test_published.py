"""Each labelled layout is known by its name, with its reader and where it is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from renaissance.data.layouts import Layout, Problems
from renaissance.data.readers.labelled import below, box_of
from renaissance.data.readers.published import LAYOUTS
from renaissance.data.readers.published_labelled import LABELLED
from renaissance.errors import DataError


def test_the_labelled_layouts_are_among_those_that_can_be_prepared() -> None:
    assert all(LAYOUTS[layout.name] is layout for layout in LABELLED)
    assert {"vqav2", "gqa", "nlvr2", "snli-ve", "refcoco", "winoground", "aro", "sugarcrepe", "glue"} <= set(LAYOUTS)


@pytest.mark.parametrize("layout", LABELLED, ids=lambda layout: layout.name)
def test_a_reader_alone_names_what_an_empty_folder_lacks(layout: Layout, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no '.*Download it"):
        next(layout.reader()(tmp_path, Problems("error")))


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a.jpg", "a/../../b.jpg", "a\\b.jpg", "a\0.jpg", None, 3])
def test_a_file_name_cannot_lead_out_of_its_folder(name: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not the name of a file|leads out of"):
        below(tmp_path, name)


@pytest.mark.parametrize("values", [[1, 2, 3], [1, 2, 3, -4], [1, 2, float("nan"), 4], [1, 2, float("inf"), 4], "abcd"])
def test_a_box_is_four_finite_numbers_with_an_area(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"."):
        box_of(values)
