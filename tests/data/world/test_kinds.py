from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from renaissance.data.prepare import prepare
from renaissance.data.prepared import Prepared
from renaissance.data.world import worlds
from renaissance.data.world.build import write_world
from renaissance.data.world.kinds import choose_kinds
from renaissance.data.world.meaning import Caption
from renaissance.data.world.questions import plan_questions
from renaissance.data.world.scene import ALL, COLOURS, SHAPES, Kinds, Scene, is_compositional
from renaissance.data.world.telling import tell_split
from renaissance.data.world.worlds import World, draw_world, split_of
from renaissance.errors import SpecError

FEW = choose_kinds(
    shapes=("triangle", "circle", "square"),
    colours=("red", "green", "blue", "yellow"),
    textures=("plain",),
    backgrounds=("white", "light grey"),
)
FEWEST = choose_kinds(shapes=("cross", "star"), colours=("red", "blue"), textures=("dotted",), backgrounds=("black",))
NEVER = ("star", "heart", "cross", "diamond", "purple", "orange", "pink", "turquoise", "striped", "dotted", "black")


def scenes(world: World, *splits: str) -> list[Scene]:
    return [picture.scene for picture in world.pictures if not splits or picture.split in splits]


def pairs(found: list[Scene]) -> set[tuple[str, str]]:
    return {(thing.shape, thing.colour) for scene in found for thing in scene.things}


# --- worlds of fewer kinds -------------------------------------------------------------------------------------------


def test_a_world_is_drawn_of_its_kinds_alone() -> None:
    drawn = scenes(draw_world(150, 0, ("en",), kinds=FEW))
    assert {scene.background for scene in drawn} == set(FEW.backgrounds)
    things = [thing for scene in drawn for thing in scene.things]
    for attribute, values in FEW.values.items():
        assert {getattr(thing, attribute) for thing in things} == set(values)


def test_no_text_of_any_layout_names_what_the_world_has_not(tmp_path: Path) -> None:
    write_world(tmp_path / "few", 60, 1, ("en",), image_size=16, kinds=FEW)
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".json", ".jsonl", ".tsv", ".txt")]
    read = {path.name: path.read_text() for path in files if path.name != "instances.json"}  # lists all categories
    assert len(read) > 20
    assert [
        (name, word) for name, text in read.items() for word in NEVER if f"{word} " in text or f'"{word}"' in text
    ] == []


def test_the_fewest_kinds_that_are_allowed_suffice_for_every_layout(tmp_path: Path) -> None:
    manifest = write_world(tmp_path / "fewest", 40, 3, ("en", "de"), image_size=16, kinds=FEWEST)
    assert manifest["kinds"]["shapes"] == ["star", "cross"]
    assert manifest["figures"]["gqa"]["val"]["n"] > 0


def test_a_question_asks_for_nothing_that_is_the_same_in_all_scenes() -> None:
    asked = [
        question
        for scene in scenes(draw_world(60, 0, ("en",), kinds=FEW))
        for question in plan_questions(scene, Random(0))
    ]
    assert {question.form for question in asked} >= {"colour", "shape", "size"}
    assert "texture" not in {question.form for question in asked}


def test_all_kinds_in_another_order_are_the_world_as_it_always_was() -> None:
    everything = choose_kinds(shapes=SHAPES[::-1], colours=COLOURS[::-1])
    assert everything == ALL == choose_kinds() == Kinds()
    assert draw_world(40, 7, ("en",), kinds=everything) == draw_world(40, 7, ("en",))


def test_the_manifest_names_the_kinds_only_where_there_are_fewer(tmp_path: Path) -> None:
    few = write_world(tmp_path / "few", 40, 0, layouts=["sbu"], image_size=16, kinds=choose_kinds(textures=["plain"]))
    assert few["kinds"] == {"textures": ["plain"]}
    assert "kinds" not in write_world(tmp_path / "all", 40, 0, layouts=["sbu"], image_size=16)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"shapes": ["circle", "cirle"]}, "'cirle' among its shapes. Did you mean 'circle'?"),
        ({"colours": ["red"]}, "at least 2 colours, and 1 is named"),
        ({"shapes": ["star", "star"]}, "at least 2 shapes, and 1 is named"),
        ({"textures": []}, "at least 1 textures, and 0"),
    ],
)
def test_unknown_and_too_few_kinds_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        choose_kinds(**given)


def test_a_world_that_has_no_more_scenes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "EXHAUSTED", 500)
    with pytest.raises(
        SpecError, match=r"no 300 different scenes for the split 'val', but \d+\. Choose a smaller --size"
    ):
        draw_world(2000, 0, ("en",), kinds=FEWEST)


# --- a compositional split -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[ALL, FEW], ids=["all kinds", "few kinds"])
def composed(request: pytest.FixtureRequest) -> World:
    return draw_world(200, 2, ("en",), kinds=request.param, compositional=True)


def test_pairs_of_the_compositional_split_are_in_no_other(composed: World) -> None:
    seen, held = pairs(scenes(composed, "train", "val", "test")), scenes(composed, "test_compositional")
    assert len(held) == 30
    assert all(any(is_compositional(*pair) for pair in pairs([scene])) for scene in held)
    assert not any(is_compositional(*pair) for pair in seen)


def test_each_shape_and_each_colour_of_the_compositional_split_is_trained_on(composed: World) -> None:
    trained = pairs(scenes(composed, "train"))
    for values in zip(*pairs(scenes(composed, "test_compositional")), strict=True):
        assert set(values) <= {value for pair in trained for value in pair}


def test_no_training_caption_names_a_pair_that_is_held_out(composed: World) -> None:
    told = [each.meaning for _, page in tell_split(composed, "coco", "train", 5) for each in page]
    nouns = [group.noun for meaning in told if isinstance(meaning, Caption) for group in meaning.groups]
    absent = [group for meaning in told for group in meaning.groups if not group.number]
    assert absent
    assert not any(is_compositional(noun.shape, noun.colour) for noun in nouns if noun.shape and noun.colour)


def test_no_world_trains_on_a_scene_of_the_compositional_split(composed: World) -> None:
    assert {split_of(scene) for scene in scenes(composed, "test_compositional")} == {"test"}


def test_without_the_option_a_world_has_the_three_splits_and_all_pairs() -> None:
    world = draw_world(400, 2, ("en",))
    assert list(world.by_split) == ["train", "val", "test"]
    assert any(is_compositional(*pair) for pair in pairs(scenes(world, "train")))


def test_the_prepared_captions_have_the_compositional_split(tmp_path: Path) -> None:
    manifest = write_world(
        tmp_path / "world", 60, 4, layouts=["coco-captions"], image_size=16, kinds=FEW, compositional=True
    )
    assert manifest["scenes"] == {"train": 33, "val": 9, "test": 9, "test_compositional": 9}
    assert manifest["figures"]["coco-captions"]["test_compositional"]["n"] == 45
    prepare("coco-captions", tmp_path / "world" / "coco-captions", tmp_path / "prepared")
    assert len(list(Prepared(tmp_path / "prepared").items("test_compositional"))) == 9


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"shapes": ["circle", "square"], "colours": ["blue", "yellow"]}, "holds out 0 of 4 pairs"),
        ({"shapes": ["circle", "heart"], "colours": ["red", "purple"]}, "would not be trained on at all"),
        ({"shapes": ["circle", "square"], "colours": ["red", "green"]}, "holds out 2 of 4 pairs"),
    ],
)
def test_kinds_without_pairs_to_hold_out_or_to_train_on_are_refused(given: dict[str, list[str]], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        draw_world(60, 0, ("en",), kinds=choose_kinds(**given), compositional=True)
