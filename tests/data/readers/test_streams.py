"""Files of annotations that are read a piece at a time give what reading them whole gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renaissance.data.readers import streams
from renaissance.data.readers.streams import json_items, json_lines, json_members, text_lines
from renaissance.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def written(folder: Path, content: str | bytes) -> Path:
    file = folder / "file.json"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@settings(max_examples=100, deadline=None)
@given(values=st.lists(VALUES), chunk=st.integers(1, 40), indent=st.sampled_from([None, 1]))
def test_elements_are_those_of_the_array_however_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], chunk: int, indent: int | None
) -> None:
    folder = tmp_path_factory.mktemp("streams")
    before, streams.CHUNK = streams.CHUNK, chunk
    try:
        assert list(json_items(written(folder, json.dumps(values, indent=indent)))) == values
        whole = {"info": {"a": [1, {"b": "]}"}]}, "other": values, "images": values, "rest": 1}
        assert list(json_items(written(folder, json.dumps(whole, ensure_ascii=True)), "images")) == values
        named = {str(place): value for place, value in enumerate(values)}
        assert dict(json_members(written(folder, json.dumps(named)))) == named
    finally:
        streams.CHUNK = before


@pytest.mark.parametrize(
    "content", ["", "[1, 2", '[{"a": ', "[1 2]", "[1,, 2]", '{"a": 1}', "null", "[" * 3000, "[tru", '["' + "x" * 90]
)
def test_a_damaged_or_truncated_file_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"file\.json' is truncated or damaged"):
        list(json_items(written(tmp_path, content)))


def test_a_file_without_the_array_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no 'images'"):
        list(json_items(written(tmp_path, '{"pictures": []}'), "images"))


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        list(json_items(tmp_path / "gone.json"))


def test_bytes_that_are_no_text_spoil_their_own_element_alone(tmp_path: Path) -> None:
    first, second = json_items(written(tmp_path, b'["caf\xe9", "caf\xc3\xa9"]'))
    assert (first, second) == ("caf\udce9", "café")


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    assert list(json_items(written(tmp_path, b"\xef\xbb\xbf[1]"))) == [1]


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    file = written(tmp_path, "a\u2028b\u0085c\r\n\nd")
    assert list(text_lines(file)) == [(1, "a\u2028b\u0085c"), (2, ""), (3, "d")]


def test_lines_that_are_no_json_are_told_by_their_number(tmp_path: Path) -> None:
    assert list(json_lines(written(tmp_path, '{"a": 1}\n\n{"a"\n2'))) == [(1, {"a": 1}), (3, None), (4, 2)]
