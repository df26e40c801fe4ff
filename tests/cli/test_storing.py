"""`renaissance features`: from a recipe to its stores, and what is told of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


@pytest.fixture
def recipe(tiny_recipe: Callable[..., dict[str, Any]], tiny_spec: Callable[..., str], tmp_path: Path) -> Path:
    """A recipe that freezes both towers, and stores in a folder of its own."""
    changes = {"start": tiny_spec("frozen vision, frozen text[:1]"), "store": {"folder": str(tmp_path / "stores")}}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe(**changes)))
    return path


def test_stores_are_forecast_built_shown_verified_and_cleared_out(cli: Cli, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stores"
    planned = cli("features", "build", str(recipe), "--dry-run", "--json").json()["stores"]
    assert next((store["part"], store["samples"], store["missing"]) for store in planned) == ("vision tower", 30, 30)
    assert not list(folder.rglob("*.safetensors"))

    built = cli("features", "build", str(recipe))
    assert built.code == 0
    assert "text[:1]" in built.out
    shown = cli("features", "info", "--folder", str(folder), "--json").json()["stores"]
    assert {store["part"]: store["samples"] for store in shown} == {
        store["part"]: store["samples"] for store in planned
    }
    sizes = {store["part"]: store["file_bytes"] for store in shown}
    for store in planned:
        assert store["data_bytes"] == pytest.approx(sizes[store["part"]], rel=0.2)
    again = cli("features", "build", str(recipe), "--json").json()["stores"]
    assert [store["missing"] for store in again] == [0, 0]

    whole = cli("features", "verify", str(recipe), "--json").json()
    assert set(whole["stores"]) == {store["key"] for store in shown}
    assert (whole["faults"], whole["missing"]) == ([], {"vision tower": 0, "text[:1]": 0})
    spared = cli("features", "gc", "--keep-gb", "0", "--keep", str(recipe), "--folder", str(folder), "--json").json()
    assert spared["stores"] == []

    shard = next(folder.rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-8])
    damaged = cli("features", "verify", "--folder", str(folder))
    assert damaged.code == 13
    assert str(shard) in damaged.err
    cleared = cli("features", "gc", "--keep-gb", "0", "--folder", str(folder))
    assert cleared.code == 0
    assert cleared.out.count("is deleted") == 2
    assert json.loads(cli("features", "info", "--folder", str(folder), "--json").out)["stores"] == []


def test_clearing_out_without_a_rule_is_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    result = cli("features", "gc", "--folder", str(tmp_path))
    assert result.code == 2
    assert "--older-than DAYS" in result.err


def test_a_recipe_that_freezes_nothing_has_no_stores_to_build(
    cli: Cli, tiny_recipe: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe()))
    result = cli("features", "build", str(tmp_path / "tiny.yaml"))
    assert result.code == 2
    assert "no tower is frozen" in result.err


def test_a_recipe_that_thaws_all_that_could_be_stored_is_told_so(
    cli: Cli, tiny_recipe: Callable[..., dict[str, Any]], tiny_spec: Callable[..., str], tmp_path: Path
) -> None:
    recipe = tiny_recipe(start=tiny_spec("frozen vision"), freezing={"stages": [{"at": 2, "thaw": ["vision"]}]})
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    result = cli("features", "build", str(tmp_path / "tiny.yaml"))
    assert result.code == 2
    assert "in every stage of 'freezing', and its stages thaw all that could be stored" in result.err
