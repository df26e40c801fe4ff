from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


def test_world_is_written_and_its_figures_shown(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = cli("data", "world", str(out), "--size", "40", "--languages", "de, es", "--layouts", "nlvr2,sbu")
    assert result.code == 0
    assert any(line.split()[:2] == ["nlvr2-es", "dev"] for line in result.out.splitlines())
    assert {path.name for path in out.iterdir()} >= {"nlvr2", "nlvr2-es", "sbu", "sbu-es", "world.json"}
    assert cli("data", "prepare", "nlvr2", str(out / "nlvr2"), str(tmp_path / "prepared")).code == 0


def test_world_as_json_is_its_manifest(cli: Cli, tmp_path: Path) -> None:
    result = cli("data", "world", str(tmp_path / "out"), "--size", "40", "--layouts", "sbu", "--json")
    assert result.json()["layouts"] == ["sbu"]


def test_a_world_in_the_place_of_another_folder_is_refused(cli: Cli, tmp_path: Path) -> None:
    result = cli("data", "world", str(tmp_path), "--size", "40")
    assert (result.code, result.out) == (8, "")
    assert "exists already" in result.err
