"""Readers of COCO, Flickr30k and Visual Genome, on their published layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from renaissance.data.layouts import RawItem
from renaissance.errors import DataError, SampleError
from tests.data.readers.builders import coco, flickr30k, read_all, visual_genome


def rewritten(file: Path, change: Any) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_coco_gives_each_image_with_its_captions_in_its_split(tmp_path: Path) -> None:
    file = coco(tmp_path, images=8)
    items, _ = read_all("coco-captions", tmp_path)
    assert [item.split for item in items] == [entry["split"] for entry in file["images"]]
    assert [item.id for item in items] == [str(number) for number in range(8)]
    for item, entry in zip(items, file["images"], strict=True):
        assert item.texts == tuple(sentence["raw"] for sentence in entry["sentences"])
        (image,) = item.images
        assert image.id == f"coco:{entry['cocoid']}"
        assert image.path == tmp_path / entry["filepath"] / entry["filename"]
        assert image.path.is_file()


def test_flickr30k_gives_each_image_with_its_captions_in_its_split(tmp_path: Path) -> None:
    flickr30k(tmp_path)
    items, _ = read_all("flickr30k", tmp_path)
    assert [(item.split, item.id, item.images[0].id) for item in items] == [
        ("train", "100", "flickr30k:100"),
        ("val", "101", "flickr30k:101"),
        ("test", "102", "flickr30k:102"),
    ]
    assert all(len(item.texts) == 5 and item.images[0].path.is_file() for item in items)


def test_visual_genome_gives_regions_and_boxes_side_by_side(tmp_path: Path) -> None:
    visual_genome(tmp_path)
    items, _ = read_all("visual-genome", tmp_path)
    assert items[0] == RawItem(
        split="train",
        id="1",
        row="region_descriptions.json, image 1",
        images=items[0].images,
        texts=("thing 0 of 1", "thing 1 of 1", "thing 2 of 1"),
        boxes=((0.0, 1.0, 3.0, 2.0), (1.0, 1.0, 3.0, 2.0), (2.0, 1.0, 3.0, 2.0)),
        fields={"coco_id": "391895", "flickr_id": "7"},
    )
    assert [item.images[0].path.parent.name for item in items] == ["VG_100K", "VG_100K_2"]
    assert items[1].fields == {"flickr_id": "7"}


def test_visual_genome_needs_no_facts_of_its_images(tmp_path: Path) -> None:
    visual_genome(tmp_path, facts=False)
    assert [dict(item.fields) for item in read_all("visual-genome", tmp_path)[0]] == [{}, {}]


def test_a_region_without_a_phrase_is_left_out_with_its_box(tmp_path: Path) -> None:
    visual_genome(tmp_path)
    rewritten(tmp_path / "region_descriptions.json", lambda file: file[0]["regions"][1].update(phrase=" "))
    items, problems = read_all("visual-genome", tmp_path, skip=True)
    assert [box[0] for box in items[0].boxes] == [0.0, 2.0]
    assert problems.skipped == ["region_descriptions.json, image 1: the caption is empty"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"split": "extra"}, "the split 'extra' is none of train, restval, val, test, test_compositional"),
        ({"sentences": []}, "the image has no caption"),
        ({"sentences": [{"tokens": []}]}, "the entry lacks what the layout has (KeyError: 'raw')"),
        ({"sentences": None}, "the entry lacks what the layout has (TypeError: 'NoneType' object is not iterable)"),
    ],
)
def test_an_entry_that_cannot_be_used_is_an_error_or_left_out(
    tmp_path: Path, change: dict[str, object], fault: str
) -> None:
    coco(tmp_path)
    rewritten(tmp_path / "dataset_coco.json", lambda file: file["images"][2].update(change))
    items, problems = read_all("coco-captions", tmp_path, skip=True)
    assert (len(items), problems.skipped) == (3, [f"dataset_coco.json, image 3: {fault}"])
    with pytest.raises(SampleError, match=r"dataset_coco\.json, image 3: .* Mend it, or leave such rows out with"):
        read_all("coco-captions", tmp_path)


def test_a_caption_that_is_not_utf_8_is_left_out_alone(tmp_path: Path) -> None:
    coco(tmp_path)
    file = tmp_path / "dataset_coco.json"
    file.write_bytes(file.read_bytes().replace(b'"raw": "Picture 1', b'"raw": "Pictur\xe9 1', 1))
    items, problems = read_all("coco-captions", tmp_path, skip=True)
    assert [len(item.texts) for item in items] == [5, 4, 5, 5]
    assert problems.skipped == ["dataset_coco.json, image 2: the caption is not valid Unicode"]


def test_a_truncated_split_file_is_an_error_even_where_rows_are_left_out(tmp_path: Path) -> None:
    coco(tmp_path)
    file = tmp_path / "dataset_coco.json"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"dataset_coco\.json' is truncated or damaged"):
        read_all("coco-captions", tmp_path, skip=True)
