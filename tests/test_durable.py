from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from renaissance.durable import sha256_of, sync_file, sync_folder, write_atomically
from renaissance.errors import OutputError


def test_a_file_is_replaced_whole_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    for text in ("old", "new \u00e9"):
        write_atomically(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert [file.name for file in tmp_path.iterdir()] == ["scores.json"]


@pytest.mark.parametrize("name", ["not-there/x.json", f"{'n' * 300}.json"])
def test_what_cannot_be_written_is_an_output_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"cannot be written \(.*\)\. Choose another folder"):
        write_atomically(tmp_path / name, "x")


def test_a_folder_in_the_place_of_the_file_stays_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="taken cannot be written"):
        write_atomically(tmp_path / "taken", "x")
    assert [file.name for file in tmp_path.iterdir()] == ["taken"]


def test_the_digest_is_that_of_the_bytes_and_syncing_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc" * 100_000)
    sync_file(path)
    sync_folder(tmp_path)
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
