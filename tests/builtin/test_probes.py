"""Winoground, ARO and SugarCrepe: strict comparisons, macros and groups, by hand."""

from __future__ import annotations

import pytest
import torch

from renaissance.builtin.probes import Probe, aro_scores, sugarcrepe_scores, winoground_scores
from renaissance.errors import DataError
from tests.builtin.item_cases import item


def values(scores: list) -> dict[str, float]:
    return {score.name: score.value for score in scores}


def test_winoground_asks_for_both_texts_both_images_or_all() -> None:
    matches = [
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),  # all right
        torch.tensor([[1.0, 0.9], [2.0, 2.1]]),  # texts right; image 1 scores higher with text 0
        torch.tensor([[1.0, 2.0], [0.0, 3.0]]),  # images right; image 0 prefers text 1
        torch.tensor([[1.0, 1.0], [0.0, 1.0]]),  # a tie of texts and of images
    ]
    items = [item(n, images=2, texts=2) for n in range(4)]
    scores = winoground_scores(items, matches)
    assert values(scores) == {"text": 50.0, "image": 50.0, "group": 25.0}
    assert [score.chance for score in scores] == [25.0, 25.0, pytest.approx(100 / 6)]
    assert [score.ties for score in scores] == [25.0, 25.0, 25.0]


def test_a_tie_of_texts_or_of_images_is_a_tie_of_the_group() -> None:
    of_texts = torch.tensor([[1.0, 1.0], [0.0, 2.0]])  # image 0 likes both texts as well
    scores = winoground_scores([item(n, images=2, texts=2) for n in range(2)], [of_texts, of_texts.T])
    assert {score.name: score.ties for score in scores} == {"text": 50.0, "image": 50.0, "group": 100.0}


def test_a_blind_model_has_no_text_score() -> None:
    matches = [torch.randn(2).repeat(2, 1) for _ in range(50)]  # the image changes nothing
    scores = values(winoground_scores([item(n, images=2, texts=2) for n in range(50)], matches))
    assert scores["text"] == scores["group"] == 0


def relation(number: int, name: str, right: bool) -> tuple:
    told = {"subset": "relation", "relation": name}
    return item(number, texts=2, target=0, fields=told), torch.tensor([[float(right), 0.5]])


def test_aro_averages_over_relations_without_the_symmetric_ones() -> None:
    rows = [relation(0, "on", True), relation(1, "on", False), relation(2, "behind", True), relation(3, "near", False)]
    items, matches = zip(*rows, strict=True)
    found = values(aro_scores(items, matches))
    assert found == {"relation accuracy": 50.0, "relation macro accuracy": 75.0}


def test_aro_averages_over_pairs_of_attributes_with_25_items_or_more() -> None:
    items, matches = [], []
    for number, (pair, count, right) in enumerate((("red_blue", 25, True), ("big_old", 24, False))):
        for n in range(count):
            items.append(item(100 * number + n, texts=2, fields={"subset": "attribution", "attributes": pair}))
            matches.append(torch.tensor([[float(right), 0.5]]))
    found = values(aro_scores(items, matches))
    assert found["attribution macro accuracy"] == 100.0
    assert found["attribution accuracy"] == pytest.approx(100 * 25 / 49)


def test_the_true_order_must_be_above_all_four_others() -> None:
    items = [item(n, texts=5, target=0, fields={"subset": "coco-order"}) for n in range(3)]
    matches = [torch.tensor([[5.0, 4, 3, 2, 1]]), torch.tensor([[5.0, 4, 3, 2, 6]]), torch.tensor([[5.0, 5, 3, 2, 1]])]
    (score,) = aro_scores(items, matches)
    assert (score.name, score.value, score.chance) == ("coco-order accuracy", pytest.approx(100 / 3), pytest.approx(20))
    assert score.ties == pytest.approx(100 / 3)


def test_sugarcrepe_averages_its_subsets_and_groups_whatever_their_sizes() -> None:
    subsets = {"add_att": (1, 1), "add_obj": (3, 0), "replace_att": (1, 1), "replace_obj": (1, 1)}
    subsets |= {"replace_rel": (2, 0), "swap_att": (1, 1), "swap_obj": (2, 1)}
    items, matches = [], []
    for place, (subset, (count, right)) in enumerate(subsets.items()):
        for n in range(count):
            items.append(item(10 * place + n, texts=2, target=0, fields={"subset": subset}))
            matches.append(torch.tensor([[float(n < right), 0.5]]))
    found = values(sugarcrepe_scores(items, matches))
    assert found["add"] == pytest.approx(50)
    assert found["replace"] == pytest.approx(200 / 3)
    assert found["swap"] == pytest.approx(75)
    assert found["macro"] == pytest.approx(100 * 4.5 / 7)
    assert len(found) == 11


def test_a_part_of_sugarcrepe_is_never_called_the_whole() -> None:
    items = [item(n, texts=2, fields={"subset": "swap_att"}) for n in range(2)]
    assert set(values(sugarcrepe_scores(items, [torch.tensor([[1.0, 0.0]])] * 2))) == {"swap_att"}


def test_items_of_another_form_are_refused() -> None:
    with pytest.raises(DataError, match="two images with two texts"):
        winoground_scores([item(0)], [torch.zeros(1, 1)])
    with pytest.raises(DataError, match="a true text and false ones"):
        aro_scores([item(0)], [torch.zeros(1, 1)])
    with pytest.raises(DataError, match="subset 'colours'"):
        sugarcrepe_scores([item(0, texts=2, fields={"subset": "colours"})], [torch.zeros(1, 2)])


def test_probes_have_nothing_to_train() -> None:
    from renaissance.builtin.downstream_options import ProbeOptions

    assert not list(Probe("aro", aro_scores, ProbeOptions()).parameters())
