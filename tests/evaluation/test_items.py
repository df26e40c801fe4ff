"""The scoring interface of tasks on items: the same whatever the batch and order, and the same as the model's own."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from PIL import Image

from renaissance.api import Item
from renaissance.errors import CapabilityError, DataError, SampleError
from renaissance.evaluation import items as module
from renaissance.evaluation.items import ModelItemScorer
from renaissance.pretrained import Model
from renaissance.progress import Silent
from renaissance.toolkit.modes import evaluating

WORDS = ("a red cup", "two blue cups on a table", "a dog", "rain", "one black cat sleeps in a house")
TASKS = ("vqa", "nlvr2", "choice", "image-classification")
USES: dict[str, dict[str, Any]] = {
    "itm": {},
    "itc": {"width": 16},
    "vqa": {"labels": ["yes", "no", "2"]},
    "nlvr2": {},
    "referring": {},
    "choice": {"candidates": "texts"},
    "image-classification": {"labels": ["a", "b"]},
}


@dataclass(frozen=True)
class Kept:
    """An image in memory, which counts how often it is read."""

    name: str
    picture: Image.Image
    reads: list[str]

    def read(self) -> bytes:
        self.reads.append(self.name)
        buffer = io.BytesIO()
        self.picture.save(buffer, "PNG")
        return buffer.getvalue()


def picture(seed: int) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (24, 32, 3), dtype=torch.uint8, generator=generator)
    return Image.fromarray(pixels.numpy())


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Any]) -> Any:
    return tiny_model(USES).eval()


@pytest.fixture
def reads() -> list[str]:
    return []


@pytest.fixture
def kept(reads: list[str]) -> list[Kept]:
    return [Kept(f"picture {seed}", picture(seed), reads) for seed in range(5)]


def items_of(task: str, kept: list[Kept], count: int = 12) -> list[Item]:
    found = []
    for n in range(count):
        images = (kept[n % 5], kept[(n + 1) % 5])
        texts = (WORDS[n % 5], WORDS[(n + 2) % 5], WORDS[(n + 3) % 5])[: 2 + n % 2]
        match task:
            case "nlvr2":
                shape: Any = (images, texts[:1])
            case "choice":
                shape = (images[:1], texts)
            case "image-classification":
                shape = (images[:1], ())
            case _:
                shape = (images[:1], texts[:1])
        found.append(Item(id=str(n), images=shape[0], texts=shape[1], row=f"test, item {n}"))
    return found


def scorer(model: Any, items: list[Item]) -> ModelItemScorer:
    return ModelItemScorer(model, items, dict(model.tasks.items()), Silent().track, "test")


@pytest.mark.parametrize("task", TASKS)
def test_the_order_and_the_batch_change_nothing(
    task: str, model: Any, kept: list[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = items_of(task, kept)
    whole = {i.id: d for i, d in zip(items, scorer(model, items).decisions(task), strict=True)}
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(0)).tolist()
    for at_once, size in ((1, 64), (5, 2), (256, 1)):
        monkeypatch.setattr(module, "PAIRS_AT_ONCE", at_once)
        monkeypatch.setattr(module, "ENCODED_AT_ONCE", size)
        mixed = [items[place] for place in order]
        for each, decision in zip(mixed, scorer(model, mixed).decisions(task), strict=True):
            torch.testing.assert_close(decision, whole[each.id], atol=1e-5, rtol=1e-5)


def test_each_image_is_read_once_and_the_work_is_done_once(model: Any, kept: list[Kept], reads: list[str]) -> None:
    found = scorer(model, items_of("vqa", kept))
    first = found.decisions("vqa")
    assert sorted(reads) == [f"picture {seed}" for seed in range(5)]
    again = found.decisions("vqa")
    found.matches()
    assert len(reads) == 5
    assert all(one is other for one, other in zip(first, again, strict=True))


def test_what_no_longer_fits_is_encoded_again(
    model: Any, kept: list[Kept], reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = items_of("vqa", kept)
    expected = scorer(model, items).decisions("vqa")
    monkeypatch.setattr(module, "CACHE_BYTES", 0)
    monkeypatch.setattr(module, "PAIRS_AT_ONCE", 1)
    reads.clear()
    for one, other in zip(scorer(model, items).decisions("vqa"), expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert len(reads) == len(items)


def test_matches_by_itm_are_those_of_the_model(model: Any, kept: list[Kept]) -> None:
    items = [Item(id="w", images=(kept[0], kept[1]), texts=WORDS[:3], row="r")]
    (found,) = scorer(model, items).matches()
    given = Model(model)
    for row in range(2):
        for column in range(3):
            expected = given.match([kept[row].picture], [WORDS[column]])
            torch.testing.assert_close(found[row, column].sigmoid(), expected[0], atol=1e-5, rtol=1e-5)


def test_matches_by_itc_are_those_of_the_model(model: Any, kept: list[Kept]) -> None:
    items = [Item(id="w", images=(kept[0], kept[1]), texts=WORDS[:3], row="r")]
    (found,) = scorer(model, items).matches(by="itc")
    images, texts = Model(model).embed([kept[0].picture, kept[1].picture], list(WORDS[:3]))
    assert images is not None
    assert texts is not None
    torch.testing.assert_close(found, images @ texts.T, atol=1e-5, rtol=1e-5)


def test_itc_is_taken_where_there_is_no_itm(tiny_model: Callable[..., Any], kept: list[Kept]) -> None:
    dual = tiny_model({"itc": {}}, fusion="dual").eval()
    items = items_of("choice", kept)
    found = scorer(dual, items)
    for one, other in zip(found.matches(), found.matches(by="itc"), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(CapabilityError, match="needs the task 'itm'"):
        found.matches(by="itm")


def test_boxes_are_matched_cropped_and_items_without_boxes_whole(model: Any, kept: list[Kept]) -> None:
    box = (4.0, 2.0, 20.0, 16.0)
    items = items_of("choice", kept, 4)
    items[1] = replace(items[1], boxes=(box, (0.0, 0.0, 8.0, 8.0)))
    items[3] = replace(items[3], boxes=(box,))
    found = scorer(model, items)
    regions, whole = found.matches(regions=True), found.matches()
    assert [tuple(each.shape) for each in regions] == [(1, 2), (2, 3), (1, 2), (1, 3)]
    for place in (0, 2):
        torch.testing.assert_close(regions[place], whole[place], atol=1e-5, rtol=1e-5)
    cropped = Model(model).match([kept[3].picture.crop((4, 2, 24, 18))], [items[3].texts[0]])
    torch.testing.assert_close(regions[3][0, 0].sigmoid(), cropped[0], atol=1e-5, rtol=1e-5)


def test_vectors_are_those_of_the_model(model: Any, kept: list[Kept]) -> None:
    items = items_of("vqa", kept, 7)
    found = scorer(model, items)
    images, texts = Model(model).embed([kept[n % 5].picture for n in range(7)], list(WORDS))
    assert images is not None
    assert texts is not None
    torch.testing.assert_close(found.image_vectors(), images, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.text_vectors(WORDS), texts, atol=1e-5, rtol=1e-5)


def test_another_scorer_of_the_same_model_shares_what_is_encoded(
    model: Any, kept: list[Kept], reads: list[str]
) -> None:
    items = items_of("vqa", kept)
    found = scorer(model, items)
    first = found.decisions("vqa")
    other = found.on(items[3:5])
    assert other.items == tuple(items[3:5])
    count = len(reads)
    torch.testing.assert_close(other.decisions("vqa")[0], first[3], atol=1e-5, rtol=1e-5)
    assert len(reads) == count


def test_an_image_that_cannot_be_used_stops_the_evaluation_and_leaves_torch_as_it_was(
    model: Any, kept: list[Kept]
) -> None:
    items = items_of("vqa", kept)
    broken: Any = type("Broken", (), {"name": "broken", "read": lambda self: b"nothing"})()
    items[2] = replace(items[2], images=(broken,))
    with pytest.raises(SampleError, match="item 2"):
        scorer(model, items).decisions("vqa")
    assert not torch.is_inference_mode_enabled()
    gc.collect()


@pytest.mark.parametrize(("task", "shape"), [("nlvr2", "vqa"), ("vqa", "nlvr2"), ("image-classification", "nlvr2")])
def test_items_of_another_form_are_refused(task: str, shape: str, model: Any, kept: list[Kept]) -> None:
    with pytest.raises(DataError, match=f"'{task}'"):
        scorer(model, items_of(shape, kept)).decisions(task)


def test_padding_of_other_texts_changes_no_decision(model: Any, kept: list[Kept]) -> None:
    short = Item(id="s", images=(kept[0],), texts=("a dog",), row="r")
    long = Item(id="l", images=(kept[1],), texts=("one black cat sleeps in a house " * 3,), row="r")
    with evaluating(model):
        (alone,) = scorer(model, [short]).decisions("vqa")
        beside, _ = scorer(model, [short, long]).decisions("vqa")
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=1e-5)
