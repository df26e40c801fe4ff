"""Winoground, ARO and SugarCrepe: true captions beside changed ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renaissance.data.prepared import Prepared
from renaissance.data.readers.published_labelled import SUGARCREPE_SUBSETS
from renaissance.data.readers.shuffles import order_options, plain_caption
from renaissance.errors import DataError, SampleError
from tests.data.readers_labelled.corpora import (
    colour_of,
    ids,
    only,
    picture,
    skipped,
    write_images,
    write_json,
    write_lines,
)

Prepare = Callable[..., Prepared]


# --- Winoground ------------------------------------------------------------------------------------------------------


def example(number: int = 0, **changed: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_0": "ex_0_img_0",
        "image_1": "ex_0_img_1",
        "caption_0": "an old person kisses a young person",
        "caption_1": "a young person kisses an old person",
        "tag": "Adjective-Age",
        "secondary_tag": "",
        "num_main_preds": 1,
        "collapsed_tag": "Object",
        **changed,
    }


def write_winoground(root: Path, *rows: dict[str, Any]) -> None:
    write_lines(root / "examples.jsonl", rows)
    write_images(root / "images", "ex_0_img_0.png", "ex_0_img_1.png")


def test_winoground_pairs_images_and_captions_by_number(root: Path, prepared: Prepare) -> None:
    write_winoground(root, example())
    item = only(prepared("winoground", root), "test")
    assert item.texts == ("an old person kisses a young person", "a young person kisses an old person")
    colours = [picture(item, number).getpixel((0, 0)) for number in (0, 1)]
    assert colours == [colour_of("ex_0_img_0.png"), colour_of("ex_0_img_1.png")]
    assert item.fields == {"tag": "Adjective-Age", "collapsed_tag": "Object", "num_main_preds": "1"}


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"caption_1": None}, "'caption_1': the text is missing"),
        ({"image_1": "ex_9_img_1"}, "ex_9_img_1.png' cannot be read"),
        ({"image_1": "../ex"}, "leads out of 'images'"),
        ({"id": 0}, "stands twice"),
    ],
)
def test_an_example_that_cannot_be_used_is_told_of(
    root: Path, prepared: Prepare, changed: dict[str, Any], fault: str
) -> None:
    write_winoground(root, example(), example(1, **changed))
    with pytest.raises(SampleError, match=r"^examples.jsonl, line 2: ") as error:
        prepared("winoground", root)
    assert fault in str(error.value)


def test_winoground_names_missing_files_with_the_page(root: Path, prepared: Prepare) -> None:
    with pytest.raises(DataError, match=r"'examples.jsonl', 'images/'.*facebook/winoground"):
        prepared("winoground", root)


# --- ARO -------------------------------------------------------------------------------------------------------------


def swapped(**more: Any) -> dict[str, Any]:
    return {
        "image_id": "2370342",
        "image_path": "2370342.jpg",
        "bbox_x": 3,
        "bbox_y": 4,
        "bbox_w": 20,
        "bbox_h": 10,
        "true_caption": "the door is to the left of the man",
        "false_caption": "the man is to the left of the door",
        **more,
    }


def write_relations(root: Path, *tests: dict[str, Any]) -> None:
    write_json(root / "visual_genome_relation.json", tests or [swapped(relation_name="to the left of")])
    write_images(root / "images", "2370342.jpg")


def write_orders(root: Path, file: str, image: str, *entries: dict[str, Any]) -> None:
    write_json(root / file, entries)
    write_images(root, image)


def test_relations_have_a_box_and_the_true_caption_first(root: Path, prepared: Prepare) -> None:
    write_relations(root)
    item = only(prepared("aro", root), "test")
    assert item.texts == ("the door is to the left of the man", "the man is to the left of the door")
    assert (item.target, item.boxes) == (0, ((3.0, 4.0, 20.0, 10.0),))
    assert item.fields == {"subset": "relation", "relation": "to the left of"}
    assert item.images[0].name.endswith("visual-genome:2370342")


def test_attributes_are_named_as_a_pair(root: Path, prepared: Prepare) -> None:
    write_json(root / "visual_genome_attribution.json", [swapped(attributes=["black", "white"], obj1_name="cat")])
    write_images(root / "images", "2370342.jpg")
    assert only(prepared("aro", root), "test").fields == {"subset": "attribution", "attributes": "black_white"}


@pytest.mark.parametrize(
    ("file", "image", "corpus", "image_id"),
    [
        (
            "coco_karpathy_test.json",
            "val2014/COCO_val2014_000000391895.jpg",
            "coco",
            "coco:391895",
        ),
        (
            "flickr30k_test.json",
            "flickr30k-images/1007129816.jpg",
            "flickr30k",
            "flickr30k:1007129816",
        ),
    ],
)
def test_captions_stand_before_their_four_shuffles(
    root: Path, prepared: Prepare, file: str, image: str, corpus: str, image_id: str
) -> None:
    captions = ["A man with a red helmet on a small moped.", "Two dogs run across a green field near some trees"]
    write_orders(root, file, image, {"image": image, "caption": captions})
    items = list(prepared("aro", root).items("test"))
    assert [item.id for item in items] == [f"{corpus}-order-0-0", f"{corpus}-order-0-1"]
    for item, caption in zip(items, captions, strict=True):
        assert item.texts == order_options(caption)
        assert len(item.texts) == 5
        assert (item.target, item.boxes, item.fields) == (0, (), {"subset": f"{corpus}-order (own shuffles)"})
        assert item.images[0].name.endswith(image_id)


def test_published_candidates_are_taken_as_they_are(root: Path, prepared: Prepare) -> None:
    image = "val2014/COCO_val2014_000000391895.jpg"
    options = ["a red cup", "a cup red", "cup a red"]
    write_orders(root, "coco_karpathy_test.json", image, {"image": image, "caption_options": options})
    assert only(prepared("aro", root), "test").texts == tuple(options)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"bbox_w": 0}, "is not left, top, width and height with an area"),
        ({"false_caption": "the door is to the left of the man"}, "the true and the false caption are the same"),
        ({"image_path": "1.jpg"}, "1.jpg' cannot be read"),
        ({"image_path": None}, "is not the name of a file"),
        ({"relation_name": 3}, "'relation_name': the text is not text"),
    ],
)
def test_a_test_of_aro_that_cannot_be_used_is_told_of(
    root: Path, prepared: Prepare, changed: dict[str, Any], fault: str
) -> None:
    write_relations(root, swapped(relation_name="on"), swapped(**{"relation_name": "on", **changed}))
    data = prepared("aro", root, "skip")
    assert ids(data, "test") == ["relation-0"]
    (row,) = skipped(data)
    assert row.startswith("visual_genome_relation.json, test 1: ")
    assert fault in row


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"caption": ["dog"]}, "caption 0: the words of the caption have no other order"),
        ({"caption": [None]}, "caption 0: 'caption': the text is missing"),
        ({"image": "../val2014/1.jpg"}, "leads out of"),
        ({"image": None}, "is not the name of a file"),
    ],
)
def test_a_caption_of_aro_that_cannot_be_used_is_told_of(
    root: Path, prepared: Prepare, changed: dict[str, Any], fault: str
) -> None:
    image = "val2014/COCO_val2014_000000391895.jpg"
    good = {"image": image, "caption": ["a red cup on a table"]}
    write_orders(root, "coco_karpathy_test.json", image, good, {**good, **changed}, {"image": image})
    first, second = skipped(prepared("aro", root, "skip"))
    assert fault in first
    assert second == "coco_karpathy_test.json, image 2: it has no caption"


def test_aro_without_any_of_its_files_names_one_and_the_page(root: Path, prepared: Prepare) -> None:
    write_json(root / "other.json", [])
    with pytest.raises(DataError, match=r"visual_genome_relation.json'.*mertyg/vision-language-models-are-bows"):
        prepared("aro", root)


def test_shuffles_keep_the_words_and_change_their_order() -> None:
    caption = "Two small cats are sleeping on a wooden table, next to the green lamp."
    true, *others = order_options(caption)
    assert true == "two small cats are sleeping on a wooden table, next to the green lamp"
    assert len(set(others)) == 4
    for other in others:
        assert other != true
        assert sorted(other.replace(",", "").split()) == sorted(true.replace(",", "").split())


def test_each_shuffle_moves_what_it_is_named_for() -> None:
    caption = "two small cats are sleeping on a wooden table next to the green lamp"
    words = caption.split()
    content = {"two", "small", "cats", "wooden", "table", "green", "lamp"}
    _, nouns, others, within, threes = (option.split() for option in order_options(caption))
    assert all(before == after for before, after in zip(words, nouns, strict=True) if before not in content)
    assert all(before == after for before, after in zip(words, others, strict=True) if before in content)
    groups = [words[start : start + 3] for start in range(0, len(words), 3)]
    assert [sorted(within[start : start + 3]) for start in range(0, len(words), 3)] == [sorted(g) for g in groups]
    assert all(" ".join(group) in " ".join(threes) for group in groups)


def test_shuffles_are_the_same_in_every_run() -> None:
    assert order_options("a red cup on a table") == order_options("a red cup on a table")
    assert order_options("dog") == ("dog",)


def test_captions_are_cut_to_thirty_words() -> None:
    assert plain_caption('The  "Big" dog (brown); ran!') == "the big dog brown ran"
    assert len(plain_caption("word " * 40).split()) == 30


# --- SugarCrepe ------------------------------------------------------------------------------------------------------


def write_sugarcrepe(root: Path, **changed: Any) -> None:
    entry = {"filename": "000000085329.jpg", "caption": "A red cup.", "negative_caption": "A blue cup.", **changed}
    for subset in SUGARCREPE_SUBSETS:
        write_json(root / f"{subset}.json", {"0": entry})
    write_images(root / "val2017", "000000085329.jpg")


def test_sugarcrepe_has_seven_files_and_the_true_caption_first(root: Path, prepared: Prepare) -> None:
    write_sugarcrepe(root)
    items = list(prepared("sugarcrepe", root).items("test"))
    assert [item.fields["subset"] for item in items] == list(SUGARCREPE_SUBSETS)
    assert [item.id for item in items] == [f"{subset}-0" for subset in SUGARCREPE_SUBSETS]
    assert all((item.texts, item.target) == (("A red cup.", "A blue cup."), 0) for item in items)
    assert items[0].images[0].name.endswith("coco:85329")


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"negative_caption": "A red cup."}, "the caption and the negative caption are the same"),
        ({"negative_caption": ""}, "'negative_caption': the text is empty"),
        ({"filename": "000000000001.jpg"}, "000000000001.jpg' cannot be read"),
    ],
)
def test_an_entry_of_sugarcrepe_that_cannot_be_used_is_told_of(
    root: Path, prepared: Prepare, changed: dict[str, Any], fault: str
) -> None:
    write_sugarcrepe(root, **changed)
    with pytest.raises(SampleError, match=r"^add_att.json, entry 0: ") as error:
        prepared("sugarcrepe", root)
    assert fault in str(error.value)


def test_sugarcrepe_is_not_prepared_with_a_file_missing(root: Path, prepared: Prepare) -> None:
    write_sugarcrepe(root)
    (root / "swap_obj.json").unlink()
    with pytest.raises(DataError, match=r"has no 'swap_obj.json'.*RAIVNLab/sugar-crepe"):
        prepared("sugarcrepe", root)
