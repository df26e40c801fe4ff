"""VQAv2: questions on COCO's images, with the answers of ten annotators, of whom up to two may err."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from renaissance.data.world.layouts.asked import Posed, pose, question_figure
from renaissance.data.world.layouts.site import Figures, Site, sites
from renaissance.data.world.worlds import World

ANNOTATORS = 10
# how often one of ten errs, and how often two do
ERRORS = (0, 0, 0, 0, 0, 0, 0, 1, 1, 2)
# forms of questions as the published question types that come nearest
TYPES = {
    "exists": "is there a",
    "is": "is the",
    "stands": "is the",
    "lies": "is the",
    "how many": "how many",
    "colour": "what color is the",
    "shape": "what is the",
    "size": "how",
    "texture": "what kind of",
    "side": "where is the",
}
# answers beside the values of the attributes that are asked for
OTHERWISE: Mapping[str, tuple[str, ...]] = {
    "how many": ("0", "1", "2", "3", "4"),
    "side": ("left", "right"),
}
HEAD = {"info": {"description": "A generated world.", "version": "1.0"}, "license": {"name": "CC0 1.0"}}


def write_vqav2(root: Path, world: World) -> Mapping[str, Figures]:
    """Write the questions of four subsets, the annotations of the two that are published, and the images."""
    train = pose(world, "vqav2", "train", (p for p in world.by_split["train"] if p.coco_split == "train"))
    val, test = (pose(world, "vqav2", split) for split in ("val", "test"))
    answers = {id(posed): _answers(posed, world) for posed in (*train, *val)}
    first_half = {picture.number for picture in world.by_split["test"][::2]}
    subsets = {
        "train2014": ("train", train),
        "val2014": ("val", val),
        "test-dev2015": ("test-dev", [posed for posed in test if posed.picture.number in first_half]),
        "test2015": ("test", test),
    }
    figures: dict[str, Figures] = {}
    for language, site in sites(root, "vqav2", world):
        for subset, (split, rows) in subsets.items():
            _write_questions(site, subset, rows, language)
            for posed in rows:
                site.knows(split, _id(posed), posed.answer)
        for subset, rows in (("train2014", train), ("val2014", val)):
            entries = [_annotation(posed, answers[id(posed)]) for posed in rows]
            whole = {**HEAD, "data_subtype": subset, "annotations": entries, "data_type": "mscoco"}
            site.json(f"v2_mscoco_{subset}_annotations.json", whole)

        def score(posed: Posed, answer: str) -> float:
            return soft_score(answers[id(posed)], answer)

        figures[site.name] = {"val": question_figure(train, val, score, "vqa accuracy", _type)}
    return figures


def soft_score(answers: Sequence[str], answer: str) -> float:
    """Return the mean over the ten leave-one-out subsets of min(1, count / 3)."""
    count = list(answers).count(answer)
    others, own = min(1.0, count / 3), min(1.0, (count - 1) / 3)
    return ((len(answers) - count) * others + count * own) / len(answers)


def _write_questions(site: Site, subset: str, rows: list[Posed], language: str) -> None:
    folder = "test2015" if subset.startswith("test") else subset
    questions = [
        {"image_id": posed.picture.coco_id, "question": posed.texts[language], "question_id": _id(posed)}
        for posed in rows
    ]
    whole = {
        **HEAD, "task_type": "Open-Ended", "data_type": "mscoco", "data_subtype": subset, "questions": questions,
    }  # fmt: skip
    site.json(f"v2_OpenEnded_mscoco_{subset}_questions.json", whole)
    if subset != "test-dev2015":  # a part of test2015
        for picture in {posed.picture.number: posed.picture for posed in rows}.values():
            site.image(f"{folder}/COCO_{folder}_{picture.coco_id:012d}.jpg", picture)


def _id(posed: Posed) -> int:
    return posed.picture.coco_id * 1000 + posed.number


def _type(posed: Posed) -> str:
    return TYPES[posed.asked.form]


def _answers(posed: Posed, world: World) -> list[str]:
    random = world.random("annotators", _id(posed))
    known = ("yes", "no") if posed.kind == "yes/no" else {**world.kinds.values, **OTHERWISE}[posed.asked.form]
    wrong = [answer for answer in known if answer != posed.answer]
    answers = [posed.answer] * ANNOTATORS
    for place in random.sample(range(ANNOTATORS), random.choice(ERRORS)):
        answers[place] = random.choice(wrong)
    return answers


def _annotation(posed: Posed, answers: list[str]) -> dict[str, Any]:
    given = [
        {"answer": answer, "answer_confidence": "yes" if answer == posed.answer else "maybe", "answer_id": i}
        for i, answer in enumerate(answers, start=1)
    ]
    return {
        "question_type": _type(posed),
        "multiple_choice_answer": posed.answer,
        "answers": given,
        "image_id": posed.picture.coco_id,
        "answer_type": posed.kind,
        "question_id": _id(posed),
    }
