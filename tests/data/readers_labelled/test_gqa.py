"""GQA: an object from id to question, read without holding it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renaissance.data.prepared import Prepared
from renaissance.errors import DataError, SampleError
from tests.data.readers_labelled.corpora import ids, only, skipped, write_images, write_json

Prepare = Callable[..., Prepared]


def question(image: str = "2354786", **changed: Any) -> dict[str, Any]:
    return {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "sky (1)"}],
        "entailed": [],
        "question": "Is the sky dark?",
        "imageId": image,
        "isBalanced": True,
        "answer": "yes",
        "types": {"detailed": "verifyAttrs", "semantic": "attr", "structural": "verify"},
        "fullAnswer": "Yes, the sky is dark.",
        **changed,
    }


def write_corpus(root: Path, split: str, questions: dict[str, Any]) -> None:
    write_json(root / f"{split}_balanced_questions.json", questions)
    write_images(root / "images", "2354786.jpg", "n161313.jpg")


def test_a_question_has_one_answer_and_its_kind(root: Path, prepared: Prepare) -> None:
    write_corpus(root, "train", {"02930152": question()})
    item = only(prepared("gqa", root), "train")
    assert (item.id, item.texts, item.label, item.answers) == ("02930152", ("Is the sky dark?",), "yes", ("yes",))
    assert item.fields == {"question_type": "verify", "semantic_type": "attr", "detailed_type": "verifyAttrs"}
    assert item.images[0].name.endswith("visual-genome:2354786")


def test_images_from_elsewhere_are_not_called_those_of_visual_genome(root: Path, prepared: Prepare) -> None:
    write_corpus(root, "testdev", {"1": question("n161313")})
    assert only(prepared("gqa", root), "testdev").images[0].name.endswith("/gqa:n161313")


def test_only_the_test_split_has_no_answers(root: Path, prepared: Prepare) -> None:
    bare = {key: value for key, value in question().items() if key != "answer"}
    write_corpus(root, "test", {"1": bare})
    write_corpus(root, "val", {"1": question()})
    assert only(prepared("gqa", root), "test").label is None
    write_corpus(root, "val", {"1": bare})
    with pytest.raises(SampleError, match=r"val_balanced_questions.json, question 1: it has no 'answer'"):
        prepared("gqa", root)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"question": ""}, "'question': the text is empty"),
        ({"imageId": "../secret"}, "leads out of 'images'"),
        ({"imageId": 2.5}, "neither a number nor a name"),
        ({"imageId": "404"}, "cannot be read"),
    ],
)
def test_a_question_that_cannot_be_used_is_told_of(
    root: Path, prepared: Prepare, changed: dict[str, Any], fault: str
) -> None:
    write_corpus(root, "val", {"1": question(), "2": question(**changed)})
    data = prepared("gqa", root, "skip")
    assert ids(data, "val") == ["1"]
    (row,) = skipped(data)
    assert row.startswith("val_balanced_questions.json, question 2: ")
    assert fault in row


def test_an_id_that_stands_twice_is_told_of(root: Path, prepared: Prepare) -> None:
    write_corpus(root, "val", {"1": question(), "2": question()})
    file = root / "val_balanced_questions.json"
    file.write_text(file.read_text().replace('"2": {', '"1": {'))
    with pytest.raises(SampleError, match=r"the id '1' stands twice"):
        prepared("gqa", root)


def test_missing_files_are_named_with_the_page(root: Path, prepared: Prepare) -> None:
    with pytest.raises(DataError, match=r"balanced_questions.json', 'images/'.*gqa/download.html"):
        prepared("gqa", root)
