"""VQAv2: questions join their ten answers, whatever stands between them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from renaissance.data.layouts import Problems
from renaissance.data.prepared import Prepared
from renaissance.data.readers.vqav2 import read
from renaissance.errors import DataError, SampleError
from tests.data.readers_labelled.corpora import ids, only, picture, skipped, write_images, write_json

Prepare = Callable[..., Prepared]


def question(number: int, image: int = 9, text: str = "What colour is it?") -> dict[str, Any]:
    return {"image_id": image, "question": text, "question_id": number}


def annotation(number: int, image: int = 9, **changed: Any) -> dict[str, Any]:
    answers = [{"answer": "Red." if n < 7 else "pink", "answer_confidence": "yes", "answer_id": n} for n in range(10)]
    return {
        "question_type": "what colour",
        "multiple_choice_answer": "red",
        "answers": answers,
        "image_id": image,
        "answer_type": "other",
        "question_id": number,
        **changed,
    }


def write_split(root: Path, subset: str, questions: list[Any], annotations: list[Any] | None, **head: Any) -> None:
    head = {"info": {"year": 2017}, "task_type": "Open-Ended", "data_type": "mscoco", "data_subtype": subset, **head}
    write_json(root / f"v2_OpenEnded_mscoco_{subset}_questions.json", {**head, "questions": questions})
    if annotations is not None:
        write_json(root / f"v2_mscoco_{subset}_annotations.json", {**head, "annotations": annotations})
    folder = "test2015" if subset.startswith("test") else subset
    images = {entry["image_id"] for entry in questions if "image_id" in entry}
    write_images(root / folder, *(f"COCO_{folder}_{image:012d}.jpg" for image in images))


def test_a_question_has_its_image_and_its_answers_as_published(root: Path, prepared: Prepare) -> None:
    write_split(root, "train2014", [question(9001)], [annotation(9001)])
    item = only(prepared("vqav2", root), "train")
    assert (item.id, item.texts, item.label) == ("9001", ("What colour is it?",), "red")
    assert item.answers == ("Red.",) * 7 + ("pink",) * 3
    assert item.fields == {"question_type": "what colour", "answer_type": "other"}
    published = root / "train2014" / "COCO_train2014_000000000009.jpg"
    assert item.images[0].read() == published.read_bytes()
    assert picture(item).size == (40, 30)


def test_questions_of_the_test_splits_have_no_answers(root: Path, prepared: Prepare) -> None:
    write_split(root, "test2015", [question(1), question(2)], None)
    write_split(root, "test-dev2015", [question(2)], None)
    data = prepared("vqav2", root)
    assert ids(data, "test") == ["1", "2"]
    assert only(data, "test-dev").answers == ()
    assert only(data, "test-dev").label is None
    assert data.manifest["images"]["count"] == 1


@pytest.mark.parametrize("subset", ["train2014", "val2014"])
def test_answers_without_their_questions_are_an_error(subset: str, root: Path, prepared: Prepare) -> None:
    write_split(root, "test2015", [question(1)], None)
    write_json(root / f"v2_mscoco_{subset}_annotations.json", {"annotations": [annotation(1)]})
    with pytest.raises(DataError, match=rf"has no 'v2_OpenEnded_mscoco_{subset}_questions.json'.*visualqa"):
        prepared("vqav2", root)


def test_annotations_in_another_order_are_joined(root: Path, prepared: Prepare) -> None:
    questions = [question(number, text=f"Question {number}?") for number in range(5)]
    annotations = [annotation(number, multiple_choice_answer=str(number)) for number in (3, 0, 4, 2, 1)]
    write_split(root, "val2014", questions, annotations)
    found = {item.texts[0]: item.label for item in prepared("vqav2", root).items("val")}
    assert found == {f"Question {number}?": str(number) for number in range(5)}


def test_a_part_of_the_corpus_says_its_fraction(root: Path, prepared: Prepare) -> None:
    write_split(root, "val2014", [question(1)], [annotation(1)])
    assert prepared("vqav2", root).manifest["fraction"]["val"] == round(1 / 214_354, 6)


def test_nothing_there_names_the_file_and_the_page(root: Path, prepared: Prepare) -> None:
    with pytest.raises(DataError, match=r"v2_OpenEnded_mscoco_\*_questions.json.*visualqa.org/download.html"):
        prepared("vqav2", root)


def test_missing_annotations_are_named_with_the_page(root: Path, prepared: Prepare) -> None:
    write_split(root, "val2014", [question(1)], None)
    with pytest.raises(DataError, match=r"v2_mscoco_val2014_annotations.json.*visualqa.org/download.html"):
        prepared("vqav2", root)


def test_a_missing_folder_of_images_is_named(root: Path, prepared: Prepare) -> None:
    write_split(root, "val2014", [question(1)], [annotation(1)])
    (root / "val2014").rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"has no 'val2014'"):
        prepared("vqav2", root)


def test_answers_that_say_they_are_of_another_split_are_refused(root: Path, prepared: Prepare) -> None:
    write_split(root, "val2014", [question(1)], [annotation(1)])
    write_json(
        root / "v2_mscoco_val2014_annotations.json", {"annotations": [annotation(1)], "data_subtype": "train2014"}
    )
    with pytest.raises(DataError, match=r"is that of 'train2014', not of 'val2014'"):
        prepared("vqav2", root)


def test_answers_to_other_questions_are_refused_even_where_rows_are_left_out(root: Path, prepared: Prepare) -> None:
    write_split(root, "val2014", [question(1), question(2)], [annotation(3), annotation(4)])
    with pytest.raises(DataError, match=r"answers none of the questions of its split"):
        prepared("vqav2", root, "skip")


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"answer_type": "colour"}, "the label 'colour' is none of yes/no, number, other"),
        ({"answers": [{"answer": "red"}] * 3}, "it has 3 answers, not 10"),
        ({"answers": [{"answer": None}] * 10}, "is not text"),
        ({"answers": 7}, "it lacks what the layout has"),
        ({"image_id": 10}, "the question is on image 9, its annotation on 10"),
    ],
)
def test_an_annotation_that_cannot_be_used_names_its_row(
    root: Path, prepared: Prepare, changed: Mapping[str, Any], fault: str
) -> None:
    write_split(root, "val2014", [question(1), question(2)], [annotation(1), annotation(2, **changed)])
    with pytest.raises(SampleError, match=r"v2_OpenEnded_mscoco_val2014_questions.json, question 2: .*") as error:
        prepared("vqav2", root)
    assert fault in str(error.value)
    data = prepared("vqav2", root, "skip")
    assert ids(data, "val") == ["1"]
    assert len(skipped(data)) == 1


def test_questions_and_annotations_without_their_half_are_told_of(root: Path, prepared: Prepare) -> None:
    questions, annotations = [question(1), question(2)], [annotation(1), annotation(3)]
    write_split(root, "val2014", questions, annotations)
    data = prepared("vqav2", root, "skip")
    assert ids(data, "val") == ["1"]
    assert [row.partition(": ")[2] for row in skipped(data)] == [
        "the question has no annotation",
        "it answers question 3, which is not in the questions",
    ]


def test_a_question_that_stands_twice_is_told_of(root: Path, prepared: Prepare) -> None:
    write_split(root, "val2014", [question(1), question(1)], [annotation(1), annotation(1)])
    with pytest.raises(SampleError, match=r"question 2: the id '1' stands twice in 'val'"):
        prepared("vqav2", root)


def test_a_missing_or_truncated_image_is_told_of(root: Path, prepared: Prepare) -> None:
    write_split(root, "val2014", [question(1), question(2, image=10)], [annotation(1), annotation(2, image=10)])
    (root / "val2014" / "COCO_val2014_000000000010.jpg").unlink()
    with pytest.raises(SampleError, match=r"COCO_val2014_000000000010.jpg' cannot be read"):
        prepared("vqav2", root)
    (root / "val2014" / "COCO_val2014_000000000010.jpg").write_bytes(b"")
    assert ids(prepared("vqav2", root, "skip"), "val") == ["1"]


@pytest.mark.parametrize(
    "bad",
    [
        {"question": "What?"},
        "text",
        {**question(2), "question": " "},
        {**question(2), "image_id": "x"},
        {**question(2), "image_id": 9.5},
    ],
)
def test_a_question_that_is_none_is_told_of(root: Path, prepared: Prepare, bad: Any) -> None:
    write_split(root, "test2015", [question(1)], None)
    write_json(root / "v2_OpenEnded_mscoco_test2015_questions.json", {"questions": [question(1), bad]})
    data = prepared("vqav2", root, "skip")
    assert ids(data, "test") == ["1"]
    assert skipped(data)[0].startswith("v2_OpenEnded_mscoco_test2015_questions.json, question 2: ")


def test_a_question_in_another_encoding_is_told_of(root: Path, prepared: Prepare) -> None:
    write_split(root, "test2015", [question(1), question(2, text="Is it a caf#?")], None)
    file = root / "v2_OpenEnded_mscoco_test2015_questions.json"
    file.write_bytes(file.read_bytes().replace(b"caf#", b"caf\xe9"))
    with pytest.raises(SampleError, match=r"question 2: 'question': the text is not valid Unicode"):
        prepared("vqav2", root)


def test_a_truncated_file_is_named(root: Path, prepared: Prepare) -> None:
    write_split(root, "test2015", [question(1), question(2)], None)
    file = root / "v2_OpenEnded_mscoco_test2015_questions.json"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"test2015_questions.json' is truncated or damaged"):
        prepared("vqav2", root, "skip")


def test_memory_is_that_of_a_few_elements(root: Path) -> None:
    numbers = range(4000)
    write_split(root, "val2014", [question(n) for n in numbers], [annotation(n) for n in numbers])
    tracemalloc.start()
    try:
        assert sum(1 for _ in read(root, Problems("error"))) == len(numbers)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # the standard decoder takes 20 MB for the annotations
    assert peak < 6 * 2**20
