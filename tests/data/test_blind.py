"""A blind twin gets other items' images, or texts: drawn anew in each epoch, from what looks as ever."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from renaissance.api import Item
from renaissance.data.blind import Blindfold, blinded
from renaissance.data.collate_items import ItemCollator
from renaissance.errors import DataError
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.text import WordTokenizer


@dataclass(frozen=True)
class Named:
    """An image of which only the name is asked."""

    name: str

    def read(self) -> bytes:
        raise AssertionError("nothing is decoded")


def item(number: int, images: tuple[str, ...] | None = None, texts: tuple[str, ...] | None = None, **told: Any) -> Item:
    names = (f"p{number // 2}",) if images is None else images
    return Item(
        id=f"i{number}",
        images=tuple(Named(name) for name in names),
        texts=(f"question {number}",) if texts is None else texts,
        row=f"corpus/train, item {number}",
        **told,
    )


ITEMS = tuple(item(number, label=str(number)) for number in range(40))


def seen(one: Item) -> tuple[str, ...]:
    return tuple(image.name for image in one.images)


def test_the_images_are_those_of_another_item_and_all_else_stays() -> None:
    for before, after in zip(ITEMS, blinded(ITEMS, "vision", 0), strict=True):
        assert seen(after) != seen(before)
        assert (after.id, after.texts, after.label, after.row) == (before.id, before.texts, before.label, before.row)


def test_the_texts_are_those_of_another_item_and_all_else_stays() -> None:
    for before, after in zip(ITEMS, blinded(ITEMS, "text", 0), strict=True):
        assert after.texts != before.texts
        assert (after.id, seen(after), after.label) == (before.id, seen(before), before.label)


def test_what_stands_there_says_nothing_of_what_went() -> None:
    items = tuple(item(n) for n in range(4000))
    drawn = [seen(one) for one in blinded(items, "vision", 0)]
    assert len(set(drawn)) > 1600  # of 2,000 images, 4,000 draws leave 1 / e² out: no image stands for another


def test_each_epoch_and_each_seed_draw_anew() -> None:
    def drawn(seed: int, epoch: int) -> list[tuple[str, ...]]:
        return [seen(Blindfold("vision", ITEMS, seed)(one, epoch)) for one in ITEMS]

    assert drawn(0, 0) == drawn(0, 0)
    assert drawn(0, 0) != drawn(0, 1)
    assert drawn(0, 0) != drawn(1, 0)


def test_items_keep_their_number_of_images() -> None:
    pairs = tuple(item(n, (f"left {n}", f"right {n}")) for n in range(6))
    mixed = (*ITEMS, *pairs)
    assert [len(one.images) for one in blinded(mixed, "vision", 0)] == [len(one.images) for one in mixed]
    for before, after in zip(pairs, blinded(mixed, "vision", 0)[-6:], strict=True):
        assert not set(seen(before)) & set(seen(after))


MISFITS: dict[str, tuple[Literal["vision", "text"], tuple[Item, ...], str]] = {
    "no images": ("vision", (item(0, ()), item(2, ())), "has no images"),
    "no texts": ("text", (item(0, texts=()), item(2, texts=())), "has no texts"),
    "one image for all": ("vision", (item(0), item(1)), "no other item has 1 images unlike those"),
    "boxes": ("vision", (item(0, boxes=((0.0, 0.0, 1.0, 1.0),)), item(2)), "set evaluation.blind to 'text'"),
}


@pytest.mark.parametrize(("modality", "items", "message"), MISFITS.values(), ids=MISFITS.keys())
def test_what_cannot_be_replaced_is_an_error_that_names_the_item(
    modality: Literal["vision", "text"], items: tuple[Item, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message) as raised:
        blinded(items, modality, 0)
    assert "corpus/train, item 0" in str(raised.value)


def test_a_batch_of_a_twin_is_the_same_whatever_else_is_in_it(images: ImageProcessor, texts: WordTokenizer) -> None:
    words = tuple(item(n, (), (f"a {colour} cup",)) for n, colour in enumerate(("red", "blue", "green", "black")))
    collator = ItemCollator(images, texts, 0, blindfold=Blindfold("text", words, 0))
    alone = [collator([one], 3).text_keys.item() for one in words]
    together = collator(words, 3)
    assert together.text_keys[together.pairs[:, 1]].tolist() == alone
    assert pickle.loads(pickle.dumps(collator))([words[0]], 3).text_keys.item() == alone[0]
