"""What the oracle, which reads the scene graph, and one who reads the text alone score on what the readers give."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pytest

from renaissance.api import Item
from renaissance.data.world.scene import COLOURS, SHAPES

if TYPE_CHECKING:
    from tests.data.world_layouts.conftest import Items, Written

LABELLED = {"gqa": ("val", "testdev"), "nlvr2": ("dev", "test1"), "snli-ve": ("dev", "test")}
CAPTIONED = ("coco-captions", "flickr30k")
REFERRING = {"refcoco": ("val", "testA", "testB"), "refcoco+": ("val", "testA", "testB"), "refcocog": ("val", "test")}
CHOICES = ("sugarcrepe", "aro")
ALL = (
    "vqav2",
    *LABELLED,
    *CAPTIONED,
    *REFERRING,
    *CHOICES,
    "winoground",
    "visual-genome",
    "conceptual-captions",
    "sbu",
)


def close(one: float, other: float) -> bool:
    return abs(one - other) < 0.006  # stated to two decimals


def official(answers: Iterable[str], answer: str) -> float:
    """The mean over the leave-one-out subsets of ten answers, as the official script has it."""
    given = list(answers)
    scores = [min(1.0, sum(a == answer for a in given[:i] + given[i + 1 :]) / 3) for i in range(len(given))]
    return sum(scores) / len(scores)


def habits(items: list[Item], field: str) -> dict[str, str]:
    """The most frequent label of each kind of question."""
    counts: dict[str, Counter[str]] = {}
    for item in items:
        assert item.label is not None
        counts.setdefault(item.fields[field], Counter())[item.label] += 1
    return {kind: min(found, key=lambda label: (-found[label], label)) for kind, found in counts.items()}


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("layout", ALL)
def test_the_oracle_knows_each_item_and_no_other(world: Written, items: Items, layout: str, language: str) -> None:
    oracle = world.oracle(layout, language)
    found = items(layout, language)
    assert {split: [item.id for item in rows] for split, rows in found.items()} == {
        split: list(answers) for split, answers in oracle.items()
    }


# --- questions -------------------------------------------------------------------------------------------------------


def test_vqav2_oracle_scores_100_and_the_blind_one_what_is_stated(world: Written, items: Items) -> None:
    rows, truth, stated = items("vqav2")["val"], world.oracle("vqav2")["val"], world.figure("vqav2", "val")
    assert all(official(item.answers, truth[item.id]) == 1.0 for item in rows)
    assert any(len(set(item.answers)) > 1 for item in rows)
    habit = habits(items("vqav2")["train"], "question_type")
    blind = [official(item.answers, habit.get(item.fields["question_type"], "")) for item in rows]
    assert close(100 * sum(blind) / len(rows), stated["blind"])
    constants = [sum(official(item.answers, a) for item in rows) for a in {str(item.label) for item in rows}]
    assert close(100 * max(constants) / len(rows), stated["chance"])
    assert stated["n"] == len(rows)


@pytest.mark.parametrize("split", ["val", "testdev"])
def test_gqa_oracle_scores_100_and_the_blind_one_what_is_stated(world: Written, items: Items, split: str) -> None:
    rows, truth, stated = items("gqa")[split], world.oracle("gqa")[split], world.figure("gqa", split)
    assert all(item.answers == (truth[item.id],) for item in rows)
    habit = habits(items("gqa")["train"], "detailed_type")
    right = sum(habit.get(item.fields["detailed_type"]) == item.label for item in rows)
    assert close(100 * right / len(rows), stated["blind"])
    assert close(100 * max(Counter(item.label for item in rows).values()) / len(rows), stated["chance"])


@pytest.mark.parametrize("layout", ["vqav2", "gqa"])
def test_yes_is_as_frequent_as_no(items: Items, layout: str) -> None:
    for rows in items(layout).values():
        counts = Counter(item.label for item in rows)
        assert counts["yes"] == counts["no"]


@pytest.mark.parametrize("layout", ["vqav2", "gqa"])
def test_colours_and_shapes_that_are_asked_for_are_in_the_picture(world: Written, items: Items, layout: str) -> None:
    scenes = [json.loads(line) for line in (world.root / "scenes.jsonl").read_text().splitlines()]
    key = "coco_id" if layout == "vqav2" else "genome_id"
    things = {str(scene[key]): scene["things"] for scene in scenes}
    asked = 0
    for item in items(layout)["train"]:
        (image,) = item.images
        for name, values in (("colour", COLOURS), ("shape", SHAPES)):
            if item.label in values:
                asked += 1
                number = image.name.partition(":")[2]
                assert item.label in [thing[name] for thing in things[number]]
    assert asked > 10


# --- two pictures, hypotheses, classes -------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["nlvr2", "snli-ve"])
def test_labels_are_balanced_and_the_oracle_knows_them(world: Written, items: Items, layout: str) -> None:
    for split in LABELLED[layout]:
        rows, truth = items(layout)[split], world.oracle(layout)[split]
        assert all(item.label == truth[item.id] for item in rows)
        counts = Counter(item.label for item in rows)
        assert len(set(counts.values())) == 1
        stated = world.figure(layout, split)
        assert stated["n"] == len(rows)
        assert close(100 / len(counts), stated["blind"])
        assert stated["blind"] == stated["chance"]


def test_each_sentence_of_nlvr2_is_true_of_half_of_its_pairs(items: Items) -> None:
    for rows in items("nlvr2").values():
        labels: dict[str, Counter[str | None]] = {}
        for item in rows:
            split, sheet, _, sentence = item.fields["identifier"].split("-")
            labels.setdefault(f"{split}-{sheet}-{sentence}", Counter())[item.label] += 1
        assert all(counts == {"True": 2, "False": 2} for counts in labels.values())


def test_classes_are_shapes_and_equally_frequent(world: Written, items: Items) -> None:
    for split, rows in items("image-classification").items():
        truth = world.oracle("image-classification")[split]
        assert {item.id: item.label for item in rows} == truth
        counts = Counter(item.label for item in rows)
        assert set(counts) <= set(SHAPES)
        assert len(set(counts.values())) == 1
        if split != "train":
            assert close(world.figure("image-classification", split)["blind"], 100 / len(counts))


# --- references ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", REFERRING)
def test_the_oracle_finds_what_is_meant_also_among_detections(world: Written, items: Items, layout: str) -> None:
    assert set(items(layout)) == {"train", *REFERRING[layout]}
    for split in REFERRING[layout]:
        rows, truth, stated = items(layout)[split], world.oracle(layout)[split], world.figure(layout, split)
        assert all(item.target == truth[item.id] for item in rows)
        assert all(len(item.boxes) > 1 for item in rows)
        for item in rows:
            assert item.target is not None
            detected = [box[:4] for box in json.loads(item.fields["detections"])]
            assert max(overlap(box, item.boxes[item.target]) for box in detected) >= 0.5
        chance = sum(1 / len(item.boxes) for item in rows) / len(rows)
        assert close(100 * chance, stated["blind"])
        assert stated["n"] == len(rows)


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0, width) * max(0, height)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def test_refcoco_plus_does_not_say_where_a_thing_is(items: Items) -> None:
    places = {"left", "right", "top", "bottom", "above", "below", "corner", "middle"}
    for rows in items("refcoco+").values():
        assert not any(places & set(text.split()) for item in rows for text in item.texts)


# --- probes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "de", "es"])
@pytest.mark.parametrize("layout", CHOICES)
def test_the_true_text_is_the_one_that_the_oracle_knows(
    world: Written, items: Items, layout: str, language: str
) -> None:
    rows, truth = items(layout, language)["test"], world.oracle(layout, language)["test"]
    by_subset: dict[str, list[Item]] = {}
    for item in rows:
        by_subset.setdefault(item.fields["subset"], []).append(item)
        assert item.target == 0
        if "order" not in item.fields["subset"]:  # whose texts are without capitals and commas
            assert item.texts[0] == truth[item.id]
            assert truth[item.id] not in item.texts[1:]
    assert len(by_subset) == {"sugarcrepe": 7, "aro": 4}[layout]
    for subset, found in by_subset.items():
        stated = world.figure(layout, subset, language)
        assert stated["n"] == len(found)
        if "order" not in subset:
            lengths = [(len(item.texts[0]), len(item.texts[1])) for item in found]
            blind = sum(1.0 if a < b else 0.5 if a == b else 0.0 for a, b in lengths) / len(found)
            assert close(100 * blind, stated["blind"])


def test_swapped_captions_have_the_same_words(items: Items) -> None:
    for item in items("sugarcrepe")["test"]:
        if item.fields["subset"].startswith("swap_att"):
            one, other = (sorted(text.replace(",", "").replace("an ", "a ").split()) for text in item.texts)
            assert one == other


@pytest.mark.parametrize("language", ["en", "de", "es"])
def test_winoground_captions_are_each_true_of_one_picture(world: Written, items: Items, language: str) -> None:
    rows = items("winoground", language)["test"]
    assert rows
    assert all(world.oracle("winoground", language)["test"][item.id] == [0, 1] for item in rows)
    for item in rows:
        assert item.images[0].read() != item.images[1].read()
        assert item.texts[0] != item.texts[1]
        if language == "en":
            one, other = (sorted(text.replace(",", "").split()) for text in item.texts)
            assert one == other
    stated = [world.figure("winoground", part, language) for part in ("text", "image", "group")]
    assert [figure["chance"] for figure in stated] == [25.0, 25.0, 16.67]
    assert [figure["blind"] for figure in stated] == [0.0, 25.0, 0.0]


# --- captions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "de", "es"])
@pytest.mark.parametrize("layout", CAPTIONED)
def test_captions_of_an_evaluation_split_are_unique(world: Written, items: Items, layout: str, language: str) -> None:
    found = items(layout, language)
    for split in ("val", "test"):
        texts = [text for item in found[split] for text in item.texts]
        assert len(texts) == len(set(texts)) == 5 * len(found[split])
        stated = world.figure(layout, split, language)
        assert stated["n"] == len(texts)
        assert close(stated["blind"], 100 / len(found[split]))
        assert {item.id: list(item.texts) for item in found[split]} == world.oracle(layout, language)[split]


@pytest.mark.parametrize("language", ["en", "de", "es"])
def test_regions_of_a_picture_have_different_descriptions_and_no_opening(items: Items, language: str) -> None:
    openings = ("there ", "here ", "a picture", "es gibt", "hier ", "hay ", "se ve")
    for item in items("visual-genome", language)["train"]:
        assert len(set(item.texts)) == len(item.texts) == len(item.boxes)
        assert not any(text.startswith(openings) for text in item.texts)
