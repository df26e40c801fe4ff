from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from renaissance.cost import PRESETS
from renaissance.data.prepared import Prepared
from renaissance.shorthand import parse_spec
from renaissance.studies.design import Study, World
from renaissance.studies.folder import StudyFolder
from renaissance.studies.library import load
from renaissance.studies.worlds import made

FEW = {"shapes": ["circle", "square"], "colours": ["red", "green", "yellow"], "textures": ["plain"]}


def world(**more: Any) -> World:
    return World.model_validate({"size": 40, "seed": 1, "layouts": ["coco-captions"], "image_size": 16, **more})


def test_a_study_makes_a_world_of_the_kinds_and_with_the_split_that_it_names(tmp_path: Path) -> None:
    given = load("domain-gap").content
    assert isinstance(given, Study)
    study = given.model_copy(update={"worlds": {"few": world(kinds=FEW, compositional=True)}})
    places = made(study, StudyFolder(tmp_path / "study"), ["few/coco-captions"])
    assert "test_compositional" in Prepared(places["few/coco-captions"]).splits
    lines = next((tmp_path / "study").rglob("scenes.jsonl")).read_text().splitlines()
    things = [thing for line in lines for thing in json.loads(line)["things"]]
    assert {thing["shape"] for thing in things} == {"circle", "square"}
    assert {thing["colour"] for thing in things} == {"red", "green", "yellow"}


def test_what_a_world_leaves_at_its_default_changes_no_digest() -> None:
    plain = {"size": 40, "seed": 1, "languages": ["en"], "image_size": 16}
    assert world().model_dump(mode="json", exclude={"layouts"}) == plain
    assert world(compositional=True).model_dump(mode="json", exclude={"layouts"}) == {**plain, "compositional": True}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kinds": {"shapes": ["circle", "sqare"]}}, "Did you mean 'square'"),
        (
            {"kinds": {"shapes": ["star", "heart"], "colours": ["blue", "pink"]}, "compositional": True},
            "holds out 0 of 4",
        ),
    ],
)
def test_a_world_that_cannot_be_drawn_is_refused_with_the_study(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        world(**given)


def kinds(world: World) -> set[str]:
    chosen = world.kinds.chosen
    return {*chosen.shapes, *chosen.colours, *chosen.textures, *chosen.backgrounds}


def test_the_worlds_of_the_domain_gap_overlap_as_much_as_they_say() -> None:
    study = load("domain-gap").content
    assert isinstance(study, Study)
    shown = study.worlds["study"]
    for share in (100, 50, 0):
        towers = study.worlds[f"towers-{share}"]
        assert 100 * len(kinds(shown) & kinds(towers)) == share * len(kinds(shown))
        for sort in ("shapes", "colours", "textures", "backgrounds"):
            assert len(getattr(towers.kinds, sort)) == len(getattr(shown.kinds, sort))
        assert towers.compositional
        assert (towers.size, towers.image_size) == (shown.size, shown.image_size)
        assert towers.seed != shown.seed


@pytest.mark.parametrize("size", ["1b", "3b", "8b"])
def test_the_large_models_of_scale_are_those_that_cost_names(size: str) -> None:
    study = load("scale").content
    assert isinstance(study, Study)
    for towers in ("one", "two"):
        (start,) = study.factors["model"].levels[f"{towers}-{size}"].values()
        without_dropout = str(start).replace(", dropout=0.0", "")  # which arms must say, to have it alike
        assert parse_spec(without_dropout) == parse_spec(PRESETS[f"{towers}-tower-{size}"])
