from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renaissance.data.load import load_data
from renaissance.data.world.render import render
from renaissance.data.world.scene import COLOURS, OPPOSITE, SHAPES, Scene, Thing, draw_scene
from renaissance.data.world.verbalise import captions
from renaissance.data.world.write import generate, prepare_world
from renaissance.errors import OutputError
from renaissance.recipe.data import WorldData

SMALL = WorldData(train=20, test=10, captions=3, image_size=32, seed=4)
seeds = st.integers(0, 2**31)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@given(seeds)
def test_things_lie_in_the_picture_and_do_not_touch_unless_one_is_inside(seed: int) -> None:
    scene = draw_scene(Random(seed))
    assert 1 <= len(scene.things) <= 3
    for i, one in enumerate(scene.things):
        assert one.radius <= min(one.x, one.y, 1 - one.x, 1 - one.y)
        for j, other in enumerate(scene.things[:i]):
            apart = ((one.x - other.x) ** 2 + (one.y - other.y) ** 2) ** 0.5
            assert apart > one.radius + other.radius or scene.relation(i, j) in ("inside", "around")


@given(seeds)
def test_a_relation_read_backwards_is_its_opposite(seed: int) -> None:
    scene = draw_scene(Random(seed))
    for i in range(len(scene.things)):
        for j in range(len(scene.things)):
            forth, back = scene.relation(i, j), scene.relation(j, i)
            if i != j:
                assert (forth is None and back is None) or (forth is not None and OPPOSITE[forth] == back)


def test_relations_follow_from_geometry() -> None:
    def thing(x: float, y: float, radius: float = 0.1) -> Thing:
        return Thing("star", "red", "small", "plain", x, y, radius)

    scene = Scene("white", (thing(0.2, 0.2), thing(0.8, 0.25), thing(0.2, 0.8), thing(0.8, 0.8), thing(0.5, 0.8, 0.4)))
    assert scene.relation(0, 1) == "left of"
    assert scene.relation(1, 0) == "right of"
    assert scene.relation(0, 2) == "above"
    assert scene.relation(2, 0) == "below"
    assert scene.relation(0, 3) is None
    assert scene.relation(3, 4) == "inside"


def test_the_graph_of_a_scene_does_not_depend_on_the_order_of_its_things() -> None:
    scene = next(scene for scene in (draw_scene(Random(seed)) for seed in range(99)) if len(scene.things) == 3)
    assert Scene(scene.background, scene.things[::-1]).graph() == scene.graph()
    assert Scene("other", scene.things).graph() != scene.graph()


@given(seeds)
def test_captions_are_true_to_the_scene_and_grammatical(seed: int) -> None:
    random = Random(seed)
    scene = draw_scene(random)
    there = {(thing.colour, thing.shape) for thing in scene.things}
    told = captions(scene, 5, random)
    assert len(set(told)) == 5
    for text in told:
        affirmed = re.sub(r"\bno (\w+ )?\w+", "", text)
        named = re.findall(rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})", affirmed)
        assert named
        assert set(named) <= there
        assert not re.search(
            r"\ba [aeiou]|\ban [^aeiou]|  |\b(two|three) \w+ (\w+[^s])( |$)|there is (two|three)", text
        )


@given(seeds, st.integers(1, 20))
@settings(max_examples=20)
def test_as_many_captions_come_as_are_asked_for_whatever_is_taken(seed: int, count: int) -> None:
    random = Random(seed)
    scene = draw_scene(random)
    taken = set(captions(scene, 20, random))
    told = captions(scene, count, random, taken)
    assert len(told) == count
    assert len(taken) == 20 + count


def test_a_count_is_told_in_the_plural() -> None:
    twins = tuple(Thing("cross", "red", "small", "plain", x, 0.5, 0.12) for x in (0.2, 0.8))
    told = captions(Scene("white", twins), 20, Random(0))
    assert any("two red crosses" in text for text in told)


def test_held_out_scenes_are_no_training_scenes_and_share_no_caption() -> None:
    made = list(generate(WorldData(train=300, test=300, captions=4, image_size=16)))
    graphs = {split: [scene.graph() for _, kind, scene, _ in made if kind == split] for split in ("train", "test")}
    assert len(graphs["train"]) == len(graphs["test"]) == 300
    assert len(set(graphs["test"])) == 300
    assert not set(graphs["test"]) & set(graphs["train"])
    told = [text for _, split, _, texts in made if split == "test" for text in texts]
    assert len(told) == len(set(told)) == 1200


def test_held_out_scenes_do_not_depend_on_how_many_are_trained_on() -> None:
    def held(train: int) -> list[object]:
        return [row for row in generate(WorldData(train=train, test=20, image_size=16)) if row[1] == "test"]

    assert held(1) == held(50)


def test_a_picture_shows_the_colour_of_the_thing_on_its_background() -> None:
    scene = Scene("white", (Thing("circle", "blue", "large", "plain", 0.5, 0.5, 0.25),))
    picture = render(scene, 48)
    assert picture.size == (48, 48)
    assert picture.getpixel((24, 24)) == (25, 60, 225)
    assert picture.getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_and_texture_looks_different(shape: str) -> None:
    def looks(shape: str, texture: str) -> bytes:
        return render(Scene("black", (Thing(shape, "red", "large", texture, 0.5, 0.5, 0.25),)), 32).tobytes()

    mine = {looks(shape, texture) for texture in ("plain", "striped", "dotted")}
    assert len(mine) == 3
    assert not mine & {looks(other, "plain") for other in SHAPES if other != shape}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    worlds = (("a", SMALL), ("b", SMALL), ("c", SMALL.model_copy(update={"seed": 5})))
    a, b, c = (contents(prepare_world(data, tmp_path / name)) for name, data in worlds)
    assert a == b != c


def test_a_world_is_a_folder_with_captions_and_scene_graphs(tmp_path: Path) -> None:
    world = prepare_world(SMALL, tmp_path)
    rows = [json.loads(line) for line in (world / "captions.jsonl").read_text().splitlines()]
    graphs = [json.loads(line) for line in (world / "scenes.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [graph["id"] for graph in graphs]
    assert all((world / row["image"]).is_file() and len(row["caption"]) == 3 for row in rows)
    assert [row["split"] for row in rows] == ["train"] * 20 + ["test"] * 10
    assert {"background", "things", "relations"} <= set(graphs[0])


def test_a_world_is_generated_once_even_if_several_ask_for_it_at_a_time(tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(prepare_world(SMALL, tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 3
    assert [path.name for path in tmp_path.iterdir()] == [found[0].name]
    before = found[0].stat().st_mtime_ns
    assert prepare_world(SMALL, tmp_path) == found[0]
    assert found[0].stat().st_mtime_ns == before
    assert prepare_world(SMALL.model_copy(update={"image_size": 16}), tmp_path) != found[0]


def test_a_place_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        prepare_world(SMALL, tmp_path / "file")


def test_the_ordinary_reader_reads_a_world(tmp_path: Path) -> None:
    data = load_data(SMALL, cache=tmp_path, on_bad_sample="error", validation=4)
    assert (len(data.train), len(data.validation), len(data.splits["test"])) == (16, 4, 10)
    assert all(len(record.captions) == 3 for record in data.train)
    assert {record.id for record in data.splits["test"]} == {f"test-{number:06d}" for number in range(10)}
