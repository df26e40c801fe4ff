"""model.predict: labels with probabilities for pictures and texts that are given by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from renaissance.api import Box
from renaissance.errors import CapabilityError, DataError, SampleError, SpecError
from renaissance.pretrained import Model, build
from renaissance.registry import Registry

SPEC = (
    "tiny-vit(width=32, layers=1, heads=2, mlp_width=32) + tiny-bert(width=32, layers=1, heads=2, mlp_width=32), "
    "random both, lxmert(layers=1, width=32, heads=2)"
)
TASKS: dict[str, dict[str, Any]] = {
    "vqa": {"labels": ["yes", "no", "2"]},
    "nlvr2": {},
    "image-classification": {"labels": ["cat", "dog"]},
    "text-classification": {"subset": "mnli"},
    "regression": {},
    "referring": {},
}
PICTURES: list[Any] = [Image.linear_gradient("L").convert("RGB").rotate(angle) for angle in (0, 90)]


@pytest.fixture(scope="module")
def model() -> Model:
    return build(SPEC, tasks=TASKS, registry=Registry())


def test_answers_come_with_probabilities_the_likeliest_first(model: Model) -> None:
    one, other = model.predict("vqa", images=PICTURES, texts=["is it a cup?", "how many?"])
    for said in (one, other):
        assert set(said.probabilities) == {"yes", "no", "2"}
        assert list(said.probabilities.values()) == sorted(said.probabilities.values(), reverse=True)
        assert (said.label, said.probability) == next(iter(said.probabilities.items()))
        assert all(0 < value < 1 for value in said.probabilities.values())
    (alone,) = model.predict("vqa", images=PICTURES[0], texts="is it a cup?")
    assert alone.probabilities == pytest.approx(one.probabilities, abs=1e-5)


def test_two_pictures_or_two_texts_are_one_item(model: Model) -> None:
    (said,) = model.predict("nlvr2", images=[PICTURES], texts=["both are gray"])
    assert sum(said.probabilities.values()) == pytest.approx(1, abs=1e-5)
    (said,) = model.predict("text-classification", texts=[("it rains", "it is wet")])
    assert set(said.probabilities) == {"contradiction", "neutral", "entailment"}
    assert len(model.predict("image-classification", images=PICTURES)) == 2


def test_paths_and_bytes_are_pictures_too(model: Model, tmp_path: Path) -> None:
    PICTURES[0].save(tmp_path / "one.png")
    buffer = io.BytesIO()
    PICTURES[0].save(buffer, "PNG")
    given = [PICTURES[0], tmp_path / "one.png", str(tmp_path / "one.png"), buffer.getvalue()]
    first, *others = model.predict("vqa", images=given, texts=["is it a cup?"] * 4)
    for other in others:
        assert other.probabilities == pytest.approx(first.probabilities, abs=1e-6)


def test_predicting_leaves_the_model_in_its_mode(model: Model) -> None:
    model.train()
    model.predict("vqa", images=PICTURES[:1], texts=["is it a cup?"])
    assert model.training
    assert not torch.is_inference_mode_enabled()


def test_what_was_not_trained_is_named(model: Model) -> None:
    with pytest.raises(CapabilityError, match=r"'visual-entailment'.*tasks: vqa, nlvr2"):
        model.predict("visual-entailment", images=PICTURES[:1], texts=["it rains"])
    split_alone = build(SPEC, tasks={"itc": {}, "zero-shot-classification": {}}, registry=Registry())
    with pytest.raises(CapabilityError, match=r"'zero-shot-classification' measures whole splits.*model\.embed"):
        split_alone.predict("zero-shot-classification", images=PICTURES)
    with pytest.raises(CapabilityError, match="'regression' has none"):
        model.predict("regression", images=PICTURES[:1], texts=["it rains"])


def test_a_region_of_a_picture_is_chosen_by_its_number(model: Model) -> None:
    boxes: list[list[Box]] = [
        [(0, 0, 100, 256), (100, 0, 156, 256)],
        [(0, 0, 256, 99.5), (0, 100, 256, 156), (5, 5, 9, 9)],
    ]
    both = model.predict("referring", images=PICTURES, texts=["the left one", "the top one"], boxes=boxes)
    for said, given in zip(both, boxes, strict=True):
        assert set(said.probabilities) == {str(number) for number in range(len(given))}
        assert said.probability == max(said.probabilities.values())
        assert sum(said.probabilities.values()) == pytest.approx(1, abs=1e-5)
    turned = model.predict("referring", images=PICTURES[:1], texts=["the left one"], boxes=[boxes[0][::-1]])
    assert turned[0].probabilities["0"] == pytest.approx(both[0].probabilities["1"], abs=1e-5)


def test_boxes_that_are_missing_wrong_or_of_no_use_are_refused(model: Model) -> None:
    one: dict[str, Any] = {"images": PICTURES[:1], "texts": ["the left one"]}
    box = (0, 0, 9, 9)
    with pytest.raises(SpecError, match="give them as boxes="):
        model.predict("referring", **one)
    with pytest.raises(SpecError, match="'vqa' reads no boxes"):
        model.predict("vqa", **one, boxes=[[box]])
    with pytest.raises(SpecError, match="for 2 images, and there are 1"):
        model.predict("referring", **one, boxes=[[box], [box]])
    wrongs: list[Any] = [[], [(0, 0, 9)], [(0, 0, 9, float("nan"))], [box, "box"]]
    for wrong in wrongs:
        with pytest.raises(SpecError, match=r"boxes\[0\] is no list of boxes"):
            model.predict("referring", **one, boxes=[wrong])
    with pytest.raises(SampleError, match="lies outside of its image"):
        model.predict("referring", **one, boxes=[[box, (900, 0, 9, 9)]])
    with pytest.raises(DataError, match="has 2 texts, and 'referring' chooses"):
        model.predict("referring", images=PICTURES[:1], texts=[("one", "two")], boxes=[[box]])


def test_what_is_neither_pictures_nor_texts_is_refused(model: Model) -> None:
    wrongs: list[tuple[Any, Any]] = [([5], ["one"]), (PICTURES[:1], [7]), (PICTURES[:1], [b"one"])]
    for images, texts in wrongs:
        with pytest.raises(SampleError, match=r"(images|texts)\[0\]"):
            model.predict("vqa", images=images, texts=texts)
    alone: Any = 5
    with pytest.raises(SpecError, match=r"^images= is a int"):
        model.predict("image-classification", images=alone)


def test_what_does_not_go_together_is_refused(model: Model) -> None:
    with pytest.raises(SpecError, match="image i with text i"):
        model.predict("vqa", images=PICTURES, texts=["one"])
    with pytest.raises(SpecError, match="image i with text i"):
        model.predict("vqa")
    with pytest.raises(SampleError, match=r"texts\[0\] is empty"):
        model.predict("vqa", images=PICTURES[:1], texts=[" "])
    with pytest.raises(SampleError, match=r"images\[0\]"):
        model.predict("vqa", images=[b"no picture"], texts=["one"])
    with pytest.raises(DataError, match="'nlvr2', which reads 2 images"):
        model.predict("nlvr2", images=PICTURES[:1], texts=["one"])
