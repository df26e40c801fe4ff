"""VQAv2: `v2_OpenEnded_mscoco_*_questions.json`, `v2_mscoco_*_annotations.json`, and COCO's images.

Questions and annotations are lists in the same order, so that they are joined as they are read; where the order
differs, what waits for its other half is held in memory. The ten answers stay as published: the metric normalises them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from renaissance.data.layouts import Problems, RawImage, RawItem, require
from renaissance.data.readers.labelled import id_of, image_folder, label_of, splits_there, text_of, usable
from renaissance.data.readers.published_labelled import VQAV2_PAGE
from renaissance.data.readers.streams import json_items
from renaissance.errors import DataError

# split -> the subset in the names of its files; test-dev is a part of test, so their ids and images are the same
SUBSETS = {"train": "train2014", "val": "val2014", "test-dev": "test-dev2015", "test": "test2015"}
ANSWERED = ("train", "val")
ANSWERS = 10
ANSWER_TYPES = ("yes/no", "number", "other")
_NAMED_SUBSET = re.compile(rb'"data_subtype"\s*:\s*"([^"]{1,40})"')
_HEAD = 2**16


@dataclass(frozen=True, slots=True)
class _Pair:
    """A question, and what was answered; either may be missing."""

    question: Any
    annotation: Any


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each question of the splits that were downloaded; those of the test splits have no answers.

    Raises:
        DataError: a file is missing, damaged, or that of another split.
        SampleError: a row cannot be used, and bad samples are errors.
    """
    names = {split: f"v2_OpenEnded_mscoco_{subset}_questions.json" for split, subset in SUBSETS.items()}
    for split in ANSWERED:
        if (root / _annotations(split)).is_file():  # answers without their questions: a download that is not complete
            require(root, names[split], page=VQAV2_PAGE)
    for split, questions in splits_there(root, names, page=VQAV2_PAGE).items():
        folder = "test2015" if split.startswith("test") else SUBSETS[split]
        images = image_folder(root, (folder,), problems, page=VQAV2_PAGE)
        _check_subset(questions, SUBSETS[split])
        rows = _answered(root, split, questions) if split in ANSWERED else _unanswered(questions)
        yield from usable(rows, _Maker(split, images), problems)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the items of a split."""

    split: str
    images: Path

    def __call__(self, row: str, pair: _Pair) -> RawItem:
        question, annotation = pair.question, pair.annotation
        if question is None:
            raise ValueError(f"it answers question {annotation['question_id']}, which is not in the questions")
        key, image = id_of(question, "question_id"), int(id_of(question, "image_id"))
        text = text_of(question, "question")
        label, answers, fields = self._answer(image, annotation)
        name = f"COCO_{self.images.name}_{image:012d}.jpg"
        return RawItem(
            split=self.split,
            id=key,
            row=row,
            images=(RawImage(f"coco:{image}", self.images / name),),
            texts=(text,),
            label=label,
            answers=answers,
            fields=fields,
        )

    def _answer(self, image: int, annotation: Any) -> tuple[str | None, tuple[str, ...], dict[str, str]]:
        if self.split not in ANSWERED:
            return None, (), {}
        if annotation is None:
            raise ValueError("the question has no annotation")
        if id_of(annotation, "image_id") != str(image):
            raise ValueError(f"the question is on image {image}, its annotation on {annotation['image_id']}")
        answers = tuple(_answer_of(answer) for answer in annotation["answers"])
        if len(answers) != ANSWERS:
            raise ValueError(f"it has {len(answers)} answers, not {ANSWERS}")
        kind = label_of(annotation["answer_type"], ANSWER_TYPES)
        fields = {"question_type": str(annotation["question_type"]), "answer_type": kind}
        return str(annotation["multiple_choice_answer"]), answers, fields


def _answer_of(answer: Any) -> str:
    text = answer["answer"]
    if not isinstance(text, str):
        raise ValueError(f"the answer {text!r} is not text")
    return text


# --- questions and their answers -------------------------------------------------------------------------------------


def _annotations(split: str) -> str:
    return f"v2_mscoco_{SUBSETS[split]}_annotations.json"


def _unanswered(questions: Path) -> Iterator[tuple[str, _Pair]]:
    for number, question in enumerate(json_items(questions, "questions"), start=1):
        yield f"{questions.name}, question {number}", _Pair(question, None)


def _answered(root: Path, split: str, questions: Path) -> Iterator[tuple[str, _Pair]]:
    annotations = require(root, _annotations(split), page=VQAV2_PAGE)
    _check_subset(annotations, SUBSETS[split])
    together = False
    waiting: dict[str, list[tuple[str, Any]]] = {}  # questions, by id
    early: dict[str, list[tuple[str, Any]]] = {}  # annotations, by id
    both = zip_longest(json_items(questions, "questions"), json_items(annotations, "annotations"))
    for number, (question, annotation) in enumerate(both, start=1):
        asked, answered = f"{questions.name}, question {number}", f"{annotations.name}, annotation {number}"
        if question is not None and annotation is not None and _key(question) == _key(annotation):
            together = True
            yield asked, _Pair(question, annotation)
            continue
        for name, entry, own, other in ((asked, question, waiting, early), (answered, annotation, early, waiting)):
            if entry is None:
                continue
            found = other.get(_key(entry))
            if not found:
                own.setdefault(_key(entry), []).append((name, entry))
                continue
            together = True
            partner_name, partner = found.pop(0)
            yield (name, _Pair(entry, partner)) if own is waiting else (partner_name, _Pair(partner, entry))
    yield from _left_over(waiting, early, together, annotations)


def _left_over(
    waiting: dict[str, list[tuple[str, Any]]], early: dict[str, list[tuple[str, Any]]], together: bool, file: Path
) -> Iterator[tuple[str, _Pair]]:
    """Yield what has no other half.

    Raises:
        DataError: nothing has one: the answers are those of another split.
    """
    if waiting and early and not together:
        raise DataError(
            f"'{file}' answers none of the questions of its split: it is that of another one. "
            f"Download it again ({VQAV2_PAGE})."
        )
    for group in waiting.values():
        yield from ((name, _Pair(question, None)) for name, question in group)
    for group in early.values():
        yield from ((name, _Pair(None, annotation)) for name, annotation in group)


def _key(entry: Any) -> str:
    return str(entry.get("question_id")) if isinstance(entry, dict) else ""


def _check_subset(file: Path, subset: str) -> None:
    """Refuse a file that says it is of another split; it says so before or after its list.

    Raises:
        DataError: it is.
    """
    try:
        with file.open("rb") as opened:
            ends = opened.read(_HEAD)
            opened.seek(max(0, file.stat().st_size - _HEAD))
            ends += b"\n" + opened.read()
    except OSError as error:
        raise DataError(f"'{file}' cannot be read ({error.strerror or error}).") from None
    found = _NAMED_SUBSET.search(ends)
    if found and found[1] != subset.encode():
        named = found[1].decode(errors="replace")
        raise DataError(f"'{file}' is that of '{named}', not of '{subset}'. Download it again ({VQAV2_PAGE}).")
