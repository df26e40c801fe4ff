"""The command `renaissance card`."""

from __future__ import annotations

from pathlib import Path

import pytest

from renaissance.cli import main
from renaissance.errors import CardError, RenaissanceError
from renaissance.manifest import read_manifest, verify_files, write_manifest
from tests.card.cases import edit, edit_json, with_data


def test_the_command_prints_writes_and_checks(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(model)]) == 0
    assert capsys.readouterr().out == (model / "README.md").read_text()
    assert main(["card", str(model), "--write", "--license", "mit"]) == 0
    assert main(["card", str(model), "--check"]) == 0
    edit(model / "README.md", "4 updates", "400 updates")
    capsys.readouterr()
    assert main(["card", str(model), "--check"]) == CardError.exit_code == 17
    assert "says '400' where the files beside it say '4'" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--check", "--write"], ["--check", "--license", "mit"], ["--shorten-paths"]])
def test_options_that_contradict_each_other_are_refused(options: list[str], model: Path) -> None:
    assert main(["card", str(model), *options]) == 2


def test_the_command_shortens_paths_on_request(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_data(model, {"kind": "images", "path": "/home/ada/pictures"})
    assert main(["card", str(model), "--write", "--shorten-paths"]) == 0
    assert "A path became 'pictures'." in capsys.readouterr().err
    assert main(["card", str(model), "--check"]) == 0


def test_paths_in_the_ledger_are_shortened_too(model: Path) -> None:
    edit_json(model / "ledger.json", lambda ledger: ledger["machine"].update(cpu="/home/ada/cpu"))
    write_manifest(model)
    assert main(["card", str(model), "--write", "--shorten-paths"]) == 0
    assert main(["card", str(model), "--check"]) == 0
    assert '"cpu": "cpu"' in (model / "ledger.json").read_text()
    verify_files(model, read_manifest(model))


def test_errors_of_cards_are_errors_of_renaissance() -> None:
    assert issubclass(CardError, RenaissanceError)
