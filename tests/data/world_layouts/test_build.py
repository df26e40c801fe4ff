from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from renaissance.data.world.build import write_world
from renaissance.data.world.meaning import verdict
from renaissance.data.world.telling import Teller, tell_split
from renaissance.data.world.worlds import draw_world, split_of
from renaissance.errors import OutputError, RenaissanceError, SpecError

if TYPE_CHECKING:
    from tests.data.world_layouts.conftest import Items, Written

EVALUATED = {
    "coco-captions": ("val", "test"), "flickr30k": ("val", "test"), "conceptual-captions": ("val",),
    "vqav2": ("val", "test-dev", "test"), "gqa": ("val", "testdev"), "nlvr2": ("dev", "test1"),
    "snli-ve": ("dev", "test"), "refcoco": ("val", "testA", "testB"), "refcoco+": ("val", "testA", "testB"),
    "refcocog": ("val", "test"), "winoground": ("test",), "aro": ("test",), "sugarcrepe": ("test",),
    "visual-genome": (), "sbu": (),
}  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- splits ----------------------------------------------------------------------------------------------------------


def test_a_scene_is_of_one_split_in_every_world() -> None:
    for seed in range(3):
        for picture in draw_world(80, seed, ("en",)).pictures:
            assert split_of(picture.scene) == picture.split


def test_splits_have_no_scene_in_common_and_evaluation_none_twice() -> None:
    by_split = draw_world(400, 1, ("en",)).by_split
    assert [len(by_split[split]) for split in by_split] == [280, 60, 60]
    graphs = {split: {picture.scene.graph() for picture in pictures} for split, pictures in by_split.items()}
    assert not graphs["train"] & (graphs["val"] | graphs["test"])
    assert not graphs["val"] & graphs["test"]
    assert len(graphs["test"]) == 60


def test_no_picture_that_any_layout_trains_on_is_in_an_evaluation_split_of_another(items: Items) -> None:
    trained: set[bytes] = set()
    evaluated: set[bytes] = set()
    for layout, splits in EVALUATED.items():
        for split, rows in items(layout).items():
            pictures = {image.read() for item in rows for image in item.images}
            if split in splits:
                evaluated |= pictures
            else:
                assert split in ("train", "restval")
                trained |= pictures
    assert trained
    assert evaluated
    assert not trained & evaluated


def test_evaluation_captions_are_true_of_their_own_picture_alone() -> None:
    world = draw_world(200, 3, ("en", "de"))
    pages = tell_split(world, "coco", "test", 5)
    for picture, told in pages:
        for each in told:
            assert verdict(each.meaning, picture.scene) is True
            others = [other for other, _ in pages if other is not picture]
            assert all(verdict(each.meaning, other.scene) is False for other in others)


def test_captions_of_two_pictures_that_look_alike_are_told_apart_by_what_they_add() -> None:
    world = draw_world(100, 0, ("en",))
    scenes = [picture.scene for picture in world.by_split["val"]]
    teller = Teller(scenes, ("en",), alone=True)
    single = next(i for i, scene in enumerate(scenes) if len(scene.things) == 1)
    told = teller.tell(single, 8, Random(0))
    assert len({each.texts["en"] for each in told}) == 8


# --- languages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layout", ["vqav2", "gqa", "nlvr2", "snli-ve", "refcoco", "refcoco+", "refcocog", "winoground"]
)
def test_all_languages_have_the_same_items_and_truth(world: Written, items: Items, layout: str) -> None:
    assert world.oracle(layout, "en") == world.oracle(layout, "de") == world.oracle(layout, "es")
    english, german = (items(layout, language) for language in ("en", "de"))
    for split, rows in english.items():
        pairs = list(zip(rows, german[split], strict=True))
        assert all(one.id == other.id for one, other in pairs)
        assert all([i.read() for i in one.images] == [i.read() for i in other.images] for one, other in pairs)
        assert sum(one.texts != other.texts for one, other in pairs) == len(pairs)


def test_captions_of_all_languages_mean_the_same() -> None:
    (_, told), *_ = tell_split(draw_world(60, 0, ("en", "de", "es")), "coco", "train", 5)
    assert all(set(each.texts) == {"en", "de", "es"} and len(set(each.texts.values())) == 3 for each in told)


# --- the folder ------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_processes(world: Written, tmp_path: Path) -> None:
    write_world(tmp_path / "again", 60, 5, ("en", "de", "es"), processes=2)
    assert contents(tmp_path / "again") == contents(world.root)


def test_another_seed_gives_other_scenes_and_a_layout_does_not_depend_on_which_are_written(
    world: Written, tmp_path: Path
) -> None:
    write_world(tmp_path / "one", 60, 5, ("en", "de", "es"), ("nlvr2",))
    write_world(tmp_path / "other", 60, 6, ("en",), ("nlvr2",))
    assert contents(tmp_path / "one" / "nlvr2") == contents(world.folder("nlvr2"))
    assert contents(tmp_path / "other" / "nlvr2") != contents(world.folder("nlvr2"))
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == [
        "images", "nlvr2", "scenes.jsonl", "world.json",
    ]  # fmt: skip


def test_the_manifest_says_what_was_asked_for(world: Written) -> None:
    manifest = json.loads((world.root / "world.json").read_text())
    assert manifest == world.manifest
    assert (manifest["size"], manifest["seed"], manifest["languages"]) == (60, 5, ["en", "de", "es"])
    assert manifest["scenes"] == {"train": 42, "val": 9, "test": 9}
    assert all(figure["oracle"] == 100.0 for parts in manifest["figures"].values() for figure in parts.values())
    scenes = (world.root / "scenes.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in scenes] == list(range(1, 61))


def test_a_folder_that_exists_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(OutputError, match="exists already"):
        write_world(tmp_path / "mine", 40, 0)
    assert contents(tmp_path).keys() == {"mine/thesis.txt"}


def test_nothing_is_left_beside_the_folder(world: Written, tmp_path: Path) -> None:
    assert [path.name for path in world.root.parent.iterdir()] == ["out"]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        write_world(tmp_path / "file" / "world", 40, 0, layouts=("sbu",))
    with pytest.raises(OutputError, match="cannot be written"):
        write_world(tmp_path / ("long" * 80), 40, 0, layouts=("sbu",))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"size": 10}, "40 to 100,000 scenes, not 10"),
        ({"languages": ("fr",)}, "fr"),
        ({"languages": ()}, "at least one language"),
        ({"languages": ("en", "en")}, "none twice"),
        ({"layouts": ("vqav",)}, "Did you mean 'vqav2'?"),
        ({"image_size": 4}, "16 to 1024 pixels"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, given: dict[str, object], told: str
) -> None:
    arguments: dict[str, object] = {"size": 40, "seed": 0, **given}
    with pytest.raises(RenaissanceError, match=told) as refused:
        write_world(tmp_path / "out", **arguments)  # type: ignore[arg-type]  # wrong values are the point
    assert isinstance(refused.value, SpecError)
    assert list(tmp_path.iterdir()) == []
