"""NLVR2: identifiers lead to the two images of a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renaissance.data.prepared import Prepared
from renaissance.errors import DataError, SampleError
from tests.data.readers_labelled.corpora import colour_of, ids, only, picture, skipped, write_images, write_lines

Prepare = Callable[..., Prepared]


def sentence(identifier: str, label: Any = "True", **more: Any) -> dict[str, Any]:
    return {"sentence": "Both have a dog.", "label": label, "identifier": identifier, "synset": "dog", **more}


def write_dev(root: Path, *rows: dict[str, Any]) -> None:
    write_lines(root / "dev.json", rows or [sentence("dev-850-0-0")])
    write_images(root / "images" / "dev", "dev-850-0-img0.png", "dev-850-0-img1.png")


def test_the_images_of_train_lie_by_directory_and_stand_left_then_right(root: Path, prepared: Prepare) -> None:
    write_lines(root / "train.json", [sentence("train-10171-0-0", "False", directory=67)])
    write_images(root / "images/train/67", "train-10171-0-img0.png", "train-10171-0-img1.png")
    item = only(prepared("nlvr2", root), "train")
    assert (item.id, item.texts, item.label) == ("train-10171-0-0", ("Both have a dog.",), "False")
    assert item.fields == {"identifier": "train-10171-0-0"}
    colours = [picture(item, number).getpixel((0, 0)) for number in (0, 1)]
    assert colours == [colour_of(f"train-10171-0-img{number}.png") for number in (0, 1)]


@pytest.mark.parametrize("folder", ["images/test1", "test1"])
def test_the_images_of_the_other_splits_lie_together(root: Path, prepared: Prepare, folder: str) -> None:
    write_lines(root / "test1.json", [sentence("test1-0-1-0"), sentence("test1-0-1-1", "False")])
    write_images(root / folder, "test1-0-1-img0.png", "test1-0-1-img1.png")
    data = prepared("nlvr2", root)
    assert ids(data, "test1") == ["test1-0-1-0", "test1-0-1-1"]
    assert data.manifest["images"]["count"] == 2


def test_the_file_of_another_split_is_refused(root: Path, prepared: Prepare) -> None:
    write_dev(root, sentence("train-10171-0-0"))
    with pytest.raises(DataError, match=r"dev.json' holds 'train-10171-0-0', which is of 'train'"):
        prepared("nlvr2", root, "skip")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (sentence("dev-850-0-1", "maybe"), "the label 'maybe' is none of True, False"),
        (sentence("dev-850-0-1", True), "the label True is none of True, False"),
        (sentence("dev-850-0"), "the identifier 'dev-850-0' is not dev-<set>-<pair>-<sentence>"),
        (sentence("dev-850-0-0"), "the id 'dev-850-0-0' stands twice in 'dev'"),
        (sentence("dev-851-0-0"), "dev-851-0-img0.png' cannot be read"),
        ({"identifier": "dev-850-0-1", "label": "True"}, "it has no 'sentence'"),
    ],
)
def test_a_line_that_cannot_be_used_is_told_of(root: Path, prepared: Prepare, row: dict[str, Any], fault: str) -> None:
    write_dev(root, sentence("dev-850-0-0"), row)
    with pytest.raises(SampleError, match=r"^dev.json, line 2: ") as error:
        prepared("nlvr2", root)
    assert fault in str(error.value)
    data = prepared("nlvr2", root, "skip")
    assert ids(data, "dev") == ["dev-850-0-0"]
    assert len(skipped(data)) == 1


def test_a_line_that_is_no_json_or_no_utf8_is_told_of(root: Path, prepared: Prepare) -> None:
    write_dev(root)
    file = root / "dev.json"
    broken = file.read_bytes().replace(b"Both", b"B\xf6th").replace(b"850-0-0", b"850-0-1")
    file.write_bytes(file.read_bytes() + b'{"sentence": \n' + broken)
    rows = skipped(prepared("nlvr2", root, "skip"))
    assert rows[0] == "dev.json, line 2: the line is not JSON"
    assert rows[1] == "dev.json, line 3: 'sentence': the text is not valid Unicode"


def test_without_images_the_folder_is_named(root: Path, prepared: Prepare) -> None:
    write_lines(root / "dev.json", [sentence("dev-850-0-0")])
    with pytest.raises(DataError, match=r"has no 'images/dev'.*lil.nlp.cornell.edu/nlvr"):
        prepared("nlvr2", root)
