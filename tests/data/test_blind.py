"""A blind twin gets other items' images, or texts: drawn anew in each epoch, from what looks as ever."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from renaissance.api import Item
from renaissance.data.blind import Blindfold, blinded
from renaissance.data.collate import Collator
from renaissance.data.collate_items import ItemCollator
from renaissance.data.records import Record
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


def test_no_sample_stands_in_for_many_where_those_with_as_many_texts_lie_side_by_side() -> None:
    few = [item(n, texts=(f"true {n}", f"false {n}")) for n in range(40)]
    many = [item(n, texts=tuple(f"{n} in order {k}" for k in range(5))) for n in range(40, 200)]
    found = blinded([*few[:20], *many, *few[20:]], "text", 0)
    taken = Counter(one.texts for one in found if len(one.texts) == 2)
    assert sum(taken.values()) == 40
    assert max(taken.values()) <= 5


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
    "one image for all": ("vision", (item(0), item(1)), "no other sample has 1 images unlike those"),
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


# --- images with captions -------------------------------------------------------------------------------------------

# the first image has two records
RECORDS = tuple(
    Record(f"r{n}", Named(f"p{max(n, 1)}"), (f"caption {n}", f"told {n}")[: 1 + n % 2], f"row {n}") for n in range(30)
)


def test_images_with_captions_change_places_so_that_each_is_searched_once_more() -> None:
    after = blinded(RECORDS, "vision", 0)
    for one, other in zip(RECORDS, after, strict=True):
        assert other.image.name != one.image.name
        assert (other.id, other.captions, other.row) == (one.id, one.captions, one.row)
    assert {one.image.name for one in after} == {one.image.name for one in RECORDS}
    assert after[0].image.name == after[1].image.name
    assert after != blinded(RECORDS, "vision", 1)


def test_captions_change_places_whatever_their_number() -> None:
    after = blinded(RECORDS, "text", 0)
    assert all(not set(other.captions) & set(one.captions) for one, other in zip(RECORDS, after, strict=True))
    assert [one.image for one in after] == [one.image for one in RECORDS]
    assert sorted(one.captions for one in after) == sorted(one.captions for one in RECORDS)


def test_one_image_alone_cannot_be_blinded() -> None:
    with pytest.raises(DataError, match="row 0: no other sample has 1 images unlike those of 'r0'"):
        blinded(RECORDS[:2], "vision", 0)


def test_a_twin_learns_from_pairs_that_each_epoch_draws_anew() -> None:
    drawn = [[Blindfold("text", RECORDS, 0)(one, epoch) for one in RECORDS] for epoch in (0, 1)]
    assert [one.captions for one in drawn[0]] != [one.captions for one in drawn[1]]
    assert all(not set(two.captions) & set(one.captions) for one, two in zip(RECORDS, drawn[0], strict=True))


def test_a_batch_of_captions_shows_each_the_image_of_another_one(
    records: list[Record], images: ImageProcessor, texts: WordTokenizer
) -> None:
    seen = Collator(images, texts, 0)(records, 0)
    blind = Collator(images, texts, 0, blindfold=Blindfold("vision", records, 0))(records, 0)
    assert blind.ids == seen.ids
    assert seen.images is not None
    assert blind.images is not None
    told = [blind.text_keys[text] for text in blind.pairs[:, 1]]
    assert told == [seen.text_keys[text] for text in seen.pairs[:, 1]]
    for one, other in zip(seen.pairs[:, 0], blind.pairs[:, 0], strict=True):
        assert not seen.images.pixels[one].equal(blind.images.pixels[other])
