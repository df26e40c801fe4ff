"""Readers of Conceptual Captions and SBU: lists of images, and lists of URLs with what could be downloaded."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from renaissance.errors import DataError, SampleError
from tests.data.readers.builders import encoded, read_all

URL = "http://example.org/a/{}_o.jpg?x=1"


def image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(number))


def gcc(root: Path, rows: int = 3, *, header: bool = False) -> None:
    lines = ["caption\turl"] if header else []
    lines += [f"caption {number}\t{URL.format(number)}" for number in range(rows)]
    (root / "Train_GCC-training.tsv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("layout", "name"), [("conceptual-captions", "train_annot.json"), ("sbu", "annot.json")])
@pytest.mark.parametrize("folder", ["", "images_train/"])
def test_a_list_of_images_names_paths_below_the_root_or_the_folder(
    tmp_path: Path, layout: str, name: str, folder: str
) -> None:
    image(tmp_path / folder / "000" / "a.jpg", 1)
    (tmp_path / name).write_text(json.dumps([["000/a.jpg", "one caption"], ["000/a.jpg", "another"]]))
    items, _ = read_all(layout, tmp_path)
    assert [(item.split, item.id, item.texts) for item in items] == [
        ("train", "train-0", ("one caption",)),
        ("train", "train-1", ("another",)),
    ]
    assert {item.images[0].id for item in items} == {f"{layout}:{folder}000/a.jpg"}


def test_both_splits_are_read_each_from_its_own_list(tmp_path: Path) -> None:
    for split in ("train", "val"):
        image(tmp_path / f"images_{split}" / "a.jpg", 1)
        (tmp_path / f"{split}_annot.json").write_text(json.dumps([["a.jpg", f"of {split}"]]))
    items, _ = read_all("conceptual-captions", tmp_path)
    assert [(item.split, item.texts) for item in items] == [("train", ("of train",)), ("val", ("of val",))]


@pytest.mark.parametrize("path", ["../a.jpg", "/etc/passwd", "a\0b", ""])
def test_a_path_that_leaves_the_root_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "annot.json").write_text(json.dumps([[path, "caption"]]))
    with pytest.raises(SampleError, match="row 1: not \\[path, caption\\], with a path below the root"):
        read_all("sbu", tmp_path)


@pytest.mark.parametrize("name", ["{0:05d}/{1:09d}.jpg", "{1}_{2}", "{1}_{2}.jpg", "{1}_o.jpg"])
@pytest.mark.parametrize("header", [False, True])
def test_images_of_a_list_of_urls_are_found_by_the_names_of_downloaders(
    tmp_path: Path, name: str, header: bool
) -> None:
    gcc(tmp_path, header=header)
    for number in (0, 2):
        crc = zlib.crc32(URL.format(number).encode())
        image(tmp_path / "training" / name.format(number // 10_000, number, crc), number)
    items, problems = read_all("conceptual-captions", tmp_path, skip=True)
    assert [(item.id, item.texts) for item in items] == [("train-0", ("caption 0",)), ("train-2", ("caption 2",))]
    assert [item.images[0].read() for item in items] == [encoded(0), encoded(2)]
    assert problems.skipped == ["Train_GCC-training.tsv, row 2: its image is not there; looked for '000000001.jpg'"]


def test_a_row_without_a_tab_keeps_the_numbers_of_the_others(tmp_path: Path) -> None:
    gcc(tmp_path, rows=1)
    file = tmp_path / "Train_GCC-training.tsv"
    file.write_text("no url here\n" + file.read_text())
    image(tmp_path / "train" / "00000" / "000000001.jpg", 1)
    items, problems = read_all("conceptual-captions", tmp_path, skip=True)
    assert [item.id for item in items] == ["train-1"]
    assert problems.skipped == ["Train_GCC-training.tsv, row 1: not a caption and a URL with a tab between them"]


def test_sbu_is_read_from_its_two_files_of_lines(tmp_path: Path) -> None:
    (tmp_path / "SBU_captioned_photo_dataset_urls.txt").write_text("".join(URL.format(n) + "\n" for n in range(2)))
    captions = tmp_path / "SBU_captioned_photo_dataset_captions.txt"
    captions.write_text("first\n\n")
    image(tmp_path / "train" / "0_o.jpg", 0)
    items, problems = read_all("sbu", tmp_path, skip=True)
    assert [(item.id, item.texts) for item in items] == [("train-0", ("first",))]
    assert problems.skipped == ["SBU_captioned_photo_dataset_urls.txt, row 2: the caption is empty"]
    captions.write_text("first\n")
    with pytest.raises(DataError, match="have not the same lines"):
        read_all("sbu", tmp_path, skip=True)


@pytest.mark.parametrize(
    ("layout", "page"), [("conceptual-captions", "ConceptualCaptions/download"), ("sbu", "sbucaptions")]
)
def test_a_folder_without_a_list_is_an_error_that_names_the_download_page(
    tmp_path: Path, layout: str, page: str
) -> None:
    with pytest.raises(DataError, match=page):
        read_all(layout, tmp_path)
