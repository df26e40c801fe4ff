"""RefCOCO: references from pickles that can do nothing, regions from instances, and detections."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renaissance.data.prepared import Prepared
from renaissance.errors import DataError, SampleError
from tests.data.readers_labelled.corpora import ids, skipped, write_images, write_json

Prepare = Callable[..., Prepared]
IMAGE = "COCO_train2014_000000581857.jpg"


def reference(number: int = 1, ann: int = 12, split: str = "testA", **changed: Any) -> dict[str, Any]:
    sentences = [
        {"tokens": ["the", "lady"], "raw": "THE LADY", "sent_id": 10 * number, "sent": "the lady"},
        {"tokens": ["left"], "raw": "left", "sent_id": 10 * number + 1, "sent": "left"},
    ]
    return {
        "sent_ids": [10 * number, 10 * number + 1],
        "file_name": "COCO_train2014_000000581857_16.jpg",
        "ann_id": ann,
        "ref_id": number,
        "image_id": 581857,
        "split": split,
        "sentences": sentences,
        "category_id": 1,
        **changed,
    }


def instances() -> dict[str, Any]:
    boxes = {11: [0, 0, 10, 10], 12: [5.5, 2.0, 20.25, 9.0], 13: [1, 1, 0.0, 5]}
    annotations = [
        {"id": key, "image_id": 581857, "bbox": box, "category_id": 1, "segmentation": [[1, 2, 3]], "iscrowd": 0}
        for key, box in boxes.items()
    ]
    return {
        "info": {},
        "images": [{"id": 581857, "file_name": IMAGE, "height": 30, "width": 40}, {"id": 2, "file_name": "2.jpg"}],
        "licenses": [],
        "annotations": [*annotations, {"id": 14, "image_id": 2, "bbox": [1, 2, 3, 4], "category_id": 1}],
        "categories": [{"id": 1, "name": "person"}],
    }


def write_corpus(root: Path, refs: Any, name: str = "refs(unc).p", protocol: int = 2) -> None:
    write_json(root / "instances.json", instances())
    write_images(root / "train2014", IMAGE)
    (root / name).write_bytes(pickle.dumps(refs, protocol) if name.endswith(".p") else json.dumps(refs).encode())


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_an_item_is_one_sentence_with_the_regions_of_its_image(root: Path, prepared: Prepare, protocol: int) -> None:
    write_corpus(root, [reference()], protocol=protocol)
    first, second = prepared("refcoco", root).items("testA")
    assert (first.id, first.texts, second.id, second.texts) == ("10", ("the lady",), "11", ("left",))
    # region 13 has no area
    assert first.boxes == ((0.0, 0.0, 10.0, 10.0), (5.5, 2.0, 20.25, 9.0))
    assert first.target == 1
    assert first.fields == {"ref_id": "1", "ann_id": "12"}
    assert first.images[0].read() == (root / "train2014" / IMAGE).read_bytes()


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("refcoco", "refs(google).p"),
        ("refcoco+", "refs(unc).p"),
        ("refcocog", "refs(umd).p"),
        ("refcocog", "refs(google).json"),
    ],
)
def test_each_corpus_takes_the_references_of_its_makers(root: Path, prepared: Prepare, layout: str, name: str) -> None:
    write_corpus(root, [reference(split="val")], name)
    assert ids(prepared(layout, root), "val") == ["10", "11"]


def test_the_splits_of_unc_go_before_those_of_google(root: Path, prepared: Prepare) -> None:
    write_corpus(root, [reference(split="test")], "refs(google).p")
    write_corpus(root, [reference(split="testB")], "refs(unc).p")
    assert prepared("refcoco", root).splits == ("testB",)


@pytest.mark.parametrize("place", ["train2014", "images/mscoco/images/train2014"])
def test_the_images_may_lie_beside_the_corpus_as_refer_has_them(root: Path, prepared: Prepare, place: str) -> None:
    write_corpus(root / "refcoco", [reference()])
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / "refcoco" / "train2014").rename(root / place)
    assert ids(prepared("refcoco", root / "refcoco"), "testA") == ["10", "11"]


def test_detections_of_the_image_come_along_the_best_first(root: Path, prepared: Prepare) -> None:
    write_corpus(root, [reference()])
    found = [
        {"image_id": 581857, "category_id": 1, "box": [1, 2, 3, 4], "score": 0.25},
        {"image_id": 581857, "category_id": 1, "bbox": [5, 6, 7, 8], "score": 0.75},
        {"image_id": 2, "category_id": 1, "bbox": [5, 6, 7, 8], "score": 0.5},
    ]
    write_json(root / "detections.json", found)
    item = next(prepared("refcoco", root).items("testA"))
    assert json.loads(item.fields["detections"]) == [[5, 6, 7, 8, 0.75], [1, 2, 3, 4, 0.25]]
    write_json(root / "detections.json", found[2:])
    assert next(prepared("refcoco", root).items("testA")).fields["detections"] == "[]"


@pytest.mark.parametrize("changed", [{"score": 1.5}, {"score": None}, {"box": [1, 2, 0, 4]}, {"box": [1, 2]}])
def test_a_detection_that_is_none_is_told_of(root: Path, prepared: Prepare, changed: dict[str, Any]) -> None:
    write_corpus(root, [reference()])
    write_json(root / "detections.json", [{"image_id": 581857, "box": [1, 2, 3, 4], "score": 0.25, **changed}])
    with pytest.raises(SampleError, match=r"detections.json, detection 1: it is no detection"):
        prepared("refcoco", root)


class _Harm:
    """Writes a file when it is unpickled by a reader that calls what a pickle names."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_a_program_is_refused_and_does_not(
    root: Path, prepared: Prepare, protocol: int
) -> None:
    harmed = root / "harmed"
    write_corpus(root, [reference(harm=_Harm(str(harmed)))], protocol=protocol)
    with pytest.raises(DataError, match=r"not a pickle of plain containers: it has a step (STACK_)?GLOBAL"):
        prepared("refcoco", root, "skip")
    assert not harmed.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle at all",
        pickle.dumps([reference()])[:-20],
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x02]q\x00X\x02\x00\x00\x00\xff\xfea.",
        b"\x80\x02U\x04caf\xe9.",
        b"Pother\n.",
        b"\x80\x02\x82\x01.",
        b"(lp0\nh\xff.",
        b"\x80\x02}b.",
        b"\x80\x02K\x01)R.",
        b"\x80\x02K\x01)\x81.",
        b"\x80\x02Nr\xff\xff\xff\x7f.",
        b"\x80\x05\x96\xff\xff\xff\xff\x7f\x00\x00\x00.",
        b"\x80\x04\x8d\xff\xff\xff\xff\x7f\x00\x00\x00.",
        b"\x80\x02X\xff\xff\xff\x7f.",
    ],
)
def test_a_damaged_or_hostile_pickle_is_an_error_that_names_it(root: Path, prepared: Prepare, content: bytes) -> None:
    write_corpus(root, [])
    (root / "refs(unc).p").write_bytes(content)
    with pytest.raises(DataError, match=r"refs\(unc\).p'"):
        prepared("refcoco", root, "skip")


def test_a_pickle_of_something_else_is_refused(root: Path, prepared: Prepare) -> None:
    write_corpus(root, {"refs": []})
    with pytest.raises(DataError, match=r"holds no list of references"):
        prepared("refcoco", root)


def test_byte_strings_of_python_2_are_text(root: Path, prepared: Prepare) -> None:
    write_corpus(root, [reference()])
    old = pickle.dumps([reference()], 2)
    text = b"X\x08\x00\x00\x00the lady"
    assert text in old
    (root / "refs(unc).p").write_bytes(old.replace(text, b"U\x08the lady"))
    assert next(prepared("refcoco", root).items("testA")).texts == ("the lady",)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"split": "testC"}, "the label 'testC' is none of train, val, test, testA, testB"),
        ({"ann_id": 99}, "instances.json has no region 99 with an area on image 581857"),
        ({"ann_id": 13}, "instances.json has no region 13 with an area on image 581857"),
        ({"image_id": 7}, "instances.json has no image 7"),
        ({"sentences": []}, "it has no sentences"),
        ({"sentences": [{"sent_id": 1, "sent": ""}]}, "'sent': the text is empty"),
        ({"sentences": [{"sent_id": 10, "sent": "again"}]}, "stands twice in 'testA'"),
    ],
)
def test_a_reference_that_cannot_be_used_is_told_of(
    root: Path, prepared: Prepare, changed: dict[str, Any], fault: str
) -> None:
    write_corpus(root, [reference(), reference(2, **changed)])
    with pytest.raises(SampleError, match=r"^refs\(unc\).p, reference 2") as error:
        prepared("refcoco", root)
    assert fault in str(error.value)
    data = prepared("refcoco", root, "skip")
    assert ids(data, "testA") == ["10", "11"]
    assert skipped(data)


def test_damaged_instances_are_named(root: Path, prepared: Prepare) -> None:
    write_corpus(root, [reference()])
    write_json(root / "instances.json", {"images": instances()["images"], "annotations": [{"id": 1}]})
    with pytest.raises(DataError, match=r"instances.json', annotation 1: it lacks .*github.com/lichengunc/refer"):
        prepared("refcoco", root)


def test_missing_files_are_named_with_the_page(root: Path, prepared: Prepare) -> None:
    with pytest.raises(DataError, match=r"'instances.json', 'refs\(\*\).\*'.*github.com/lichengunc/refer"):
        prepared("refcoco", root)
    write_corpus(root, [reference()], "refs(google).p")
    with pytest.raises(DataError, match=r"has no 'refs\(unc\).p'"):
        prepared("refcoco+", root)
    (root / "train2014").rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"has no 'train2014'"):
        prepared("refcoco", root)
