"""Blind figures: what a score is where one modality is that of other samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from renaissance.api import Item, Modality, Score
from renaissance.builtin.probes import sugarcrepe_scores
from renaissance.evaluation.blind import BlindScorer, Remembering, blind_items, exchanged, with_figures
from renaissance.evaluation.evaluate import evaluate
from renaissance.evaluation.splits import SplitScores, with_twin
from tests.builtin.item_cases import Named, item
from tests.evaluation.prepared_cases import captioned, pairs, write


def crop(n: int) -> Item:
    """Return an item of an image of which one box is seen."""
    return Item(str(n), (Named(f"p{n}"),), ("a", "b"), boxes=((float(n), 0.0, 4.0, 4.0),), target=0)


def score(name: str = "accuracy", value: float = 70.0) -> Score:
    return Score(name=name, value=value, low=60.0, high=80.0, chance=50.0, n=10, units=10)


def test_figures_are_added_by_task_and_name_and_the_score_stays() -> None:
    scores = {"vqa": (score(), score("F1"))}
    found = with_figures(scores, "vision", {"vqa": [score(value=51.0)], "itm": [score(value=9.0)]})
    assert [one.blind for one in found["vqa"]] == [{"vision": 51.0}, None]
    both = with_figures(found, "text", {"vqa": [score(value=40.0)]})
    assert both["vqa"][0] == replace(score(), blind={"vision": 51.0, "text": 40.0})


def test_a_twin_is_a_figure_of_the_same_split() -> None:
    trained = [SplitScores(split, 2, 2, 2, {"vqa": (score(),)}) for split in ("val", "test")]
    found = with_twin(trained, [SplitScores("test", 2, 2, 2, {"vqa": (score(value=44.0),)})])
    assert [one.scores["vqa"][0].blind for one in found] == [None, {"twin": 44.0}]


@pytest.mark.parametrize("modality", ["vision", "text"])
def test_every_item_gets_the_modality_of_another_and_keeps_the_rest(modality: Modality) -> None:
    items = [item(number, texts=2, target=number % 2) for number in range(12)]
    found = blind_items(items, modality)
    assert found is not None
    for one, other in zip(items, found, strict=True):
        assert (one.images != other.images) == (modality == "vision")
        assert (one.texts != other.texts) == (modality == "text")
        assert (one.id, one.target) == (other.id, other.target)


def test_a_crop_takes_its_box_along() -> None:
    items = [crop(n) for n in range(6)]
    found = blind_items(items, "vision")
    assert found is not None
    for one, other in zip(items, found, strict=True):
        assert other.images != one.images
        assert other.boxes[0][0] == float(other.images[0].name.removeprefix("p"))


def test_where_nothing_can_stand_in_its_place_there_is_no_figure() -> None:
    boxes = ((0.0, 0.0, 4.0, 4.0), (4.0, 0.0, 4.0, 4.0))
    assert blind_items([replace(item(n), boxes=boxes) for n in range(6)], "vision") is None
    assert blind_items([item(n, texts=0) for n in range(6)], "text") is None
    assert blind_items([item(0)], "text") is None


def test_crops_and_whole_images_exchange_theirs_each_with_their_kind() -> None:
    items = [item(n, texts=2) if n % 2 else crop(n) for n in range(12)]
    found = blind_items(items, "vision")
    assert found is not None
    assert [bool(one.boxes) for one in found] == [bool(one.boxes) for one in items]
    for one, other in zip(items, found, strict=True):
        assert (one.id, one.texts) == (other.id, other.texts)
        assert one.images[0].name != other.images[0].name
        assert not other.boxes or other.boxes[0][0] == float(other.images[0].name.removeprefix("p"))


def test_a_number_of_texts_that_no_other_item_has_is_taken_of_a_longer_one() -> None:
    items = [item(0, texts=2), *(item(n, texts=5) for n in range(1, 6))]
    found = blind_items(items, "text")
    assert found is not None
    assert [len(one.texts) for one in found] == [2, 5, 5, 5, 5, 5]
    assert all(not set(one.texts) & set(other.texts) for one, other in zip(items, found, strict=True))


def test_captions_are_exchanged_whole_and_no_image_keeps_one() -> None:
    belongs = torch.eye(7, dtype=torch.bool).repeat_interleave(3, dim=1)
    other = exchanged(belongs)
    assert other is not None
    assert not (other & belongs).any()
    assert torch.equal(other.sum(0), belongs.sum(0))
    assert torch.equal(other.sum(1), belongs.sum(1))


def test_captions_of_every_image_cannot_be_exchanged() -> None:
    assert exchanged(torch.ones(4, 2, dtype=torch.bool)) is None
    assert exchanged(torch.ones(1, 3, dtype=torch.bool)) is None


class Fixed:
    """Scores given in place of a model's; notes how often they are asked for."""

    positives = torch.eye(5, dtype=torch.bool)

    def __init__(self) -> None:
        self.products, self.matched = 0, 0

    def similarity(self) -> Tensor:
        self.products += 1
        return torch.eye(5)

    def match(self, index: Tensor, by: str = "itm") -> Tensor:
        self.matched += len(index)
        return (index[:, 0] == index[:, 1]).float()


def test_what_is_known_is_not_computed_again() -> None:
    inner = Fixed()
    scorer = Remembering(inner)
    every = torch.ones(5, 5).nonzero()
    assert torch.equal(scorer.match(every), scorer.match(every))
    other = exchanged(inner.positives)
    assert other is not None
    blind = BlindScorer(scorer, other)
    assert torch.equal(blind.match(every).view(5, 5), torch.eye(5))
    assert torch.equal(blind.similarity(), scorer.similarity())
    assert (inner.matched, inner.products) == (25, 1)


def test_a_model_that_reads_only_texts_scores_as_much_without_its_images() -> None:
    """What the figure is for: a prior of language is told apart from seeing."""
    items = [item(n, texts=2, fields={"subset": "swap_att"}) for n in range(40)]

    def by_text(given: Sequence[Item]) -> float:
        matches = [torch.tensor([[float(text.endswith("-0")) for text in one.texts]]) for one in given]
        return sugarcrepe_scores(given, matches)[0].value

    blind = blind_items(items, "vision")
    assert blind is not None
    assert by_text(items) == by_text(blind) == 100.0


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Any]) -> Any:
    return tiny_model({"itm": {}, "itc": {"width": 16}}).eval()


def test_scores_of_items_carry_what_each_modality_gives_alone(model: Any, tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "probe", "sugarcrepe", {"test": pairs(*range(8))})
    (plain,), (found,) = (evaluate(model, folder, blind=blind) for blind in (False, True))
    assert [one.blind for one in plain.scores["sugarcrepe"]] == [None] * 1
    for one, other in zip(found.scores["sugarcrepe"], plain.scores["sugarcrepe"], strict=True):
        assert set(one.blind or {}) == {"vision", "text"}
        assert replace(one, blind=None) == other


def test_an_oracle_is_at_chance_on_exchanged_captions(model: Any, tmp_path: Path, cache: Path) -> None:
    folder = write(tmp_path / "coco", "coco-captions", {"test": captioned(*range(6))})
    (found,) = evaluate(model, folder, tasks=["itm"], blind=True)
    (one,) = found.scores["itm"]
    assert one.blind is not None
    assert one.blind["vision"] == one.blind["text"]
    assert found.rows()[0]["blind"] == one.blind
