"""Items of the user's own, from JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renaissance.data.prepare import prepare
from renaissance.data.prepared import Prepared
from renaissance.errors import DataError, SampleError

Lines = Callable[..., Path]


@pytest.fixture
def lines(pictures: Path) -> Lines:
    """Write lines of JSON beside the pictures."""

    def write(split: str, *entries: Any) -> Path:
        (pictures / f"{split}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return pictures

    return write


def test_a_line_becomes_an_item_and_its_other_keys_fields(lines: Lines, tmp_path: Path) -> None:
    lines("val", {"image": "1.png", "text": "is it green?", "label": True})
    root = lines(
        "train",
        {"id": 7, "image": "0.png", "text": "which?", "boxes": [[0, 0, 4, 8]], "target": 0, "source": "me", "n": 1.5},
        {"images": ["0.png", "1.png"], "texts": ["a", "b"], "answers": ["x", 2], "label": 3, "none": None},
        {"texts": ["only words"], "label": "yes"},
    )
    prepare("items", root, tmp_path / "out")
    first, second, third = Prepared(tmp_path / "out").items("train")
    assert (first.id, first.texts, first.target, first.boxes) == ("7", ("which?",), 0, ((0, 0, 4, 8),))
    assert first.fields == {"source": "me", "n": "1.5"}
    assert first.images[0].read() == (root / "0.png").read_bytes()
    assert (second.id, second.answers, second.label, len(second.images)) == ("train-2", ("x", "2"), "3", 2)
    assert third.images == ()
    (held,) = Prepared(tmp_path / "out").items("val")
    assert held.label == "true"


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"label": "yes"}, "neither images nor texts"),
        ({"image": "0.png", "images": ["1.png"]}, "'image' and 'images'"),
        ({"images": "0.png"}, "no list"),
        ({"image": "../0.png"}, "leads out of"),
        ({"image": "0.png", "target": -1}, "no number of a candidate"),
        ({"image": "0.png", "label": ["a"]}, "neither text nor a number"),
        ({"text": " "}, "'text'"),
        ([1], "no JSON object"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(entry: Any, fault: str, lines: Lines, tmp_path: Path) -> None:
    root = lines("train", {"image": "0.png", "label": "yes"}, entry)
    with pytest.raises(SampleError, match=rf"train\.jsonl, line 2: .*{fault}"):
        prepare("items", root, tmp_path / "out")
    prepare("items", root, tmp_path / "out", on_bad_sample="skip", skip_budget=0.5)
    assert len(list(Prepared(tmp_path / "out").items("train"))) == 1


def test_a_folder_without_lines_is_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.jsonl"):
        prepare("items", pictures, tmp_path / "out")
