"""GQA, balanced: `{train,val,testdev,test}_balanced_questions.json`, objects from id to question, and `images/`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renaissance.data.layouts import Problems, RawImage, RawItem
from renaissance.data.readers.labelled import below, id_of, image_folder, splits_there, text_of, usable
from renaissance.data.readers.published_labelled import GQA_PAGE
from renaissance.data.readers.streams import json_members

FILES = {split: f"{split}_balanced_questions.json" for split in ("train", "val", "testdev", "test")}
UNANSWERED = "test"


def read(root: Path, problems: Problems) -> Iterator[RawItem]:
    """Yield an item for each question of the splits that were downloaded; those of `test` have no answer.

    Raises:
        DataError: a file is missing or damaged.
        SampleError: a row cannot be used, and bad samples are errors.
    """
    images = image_folder(root, ("images",), problems, page=GQA_PAGE)
    for split, file in splits_there(root, FILES, page=GQA_PAGE).items():
        rows = ((f"{file.name}, question {key}", (key, entry)) for key, entry in json_members(file))
        yield from usable(rows, _Maker(split, images), problems)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the items of a split."""

    split: str
    images: Path

    def __call__(self, row: str, member: tuple[str, Any]) -> RawItem:
        key, entry = member
        image = id_of(entry, "imageId")
        # the images of testdev and test whose ids start with n are not of Visual Genome
        corpus = "gqa" if image.startswith("n") else "visual-genome"
        answer = None if self.split == UNANSWERED else text_of(entry, "answer")
        return RawItem(
            split=self.split,
            id=key,
            row=row,
            images=(RawImage(f"{corpus}:{image}", below(self.images, f"{image}.jpg")),),
            texts=(text_of(entry, "question"),),
            label=answer,
            answers=() if answer is None else (answer,),
            fields=_kinds(entry),
        )


def _kinds(entry: Any) -> dict[str, str]:
    kinds = entry.get("types") or {}
    names = {"structural": "question_type", "semantic": "semantic_type", "detailed": "detailed_type"}
    return {name: str(kinds[kind]) for kind, name in names.items() if kinds.get(kind)}
