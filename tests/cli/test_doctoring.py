"""`data doctor` and `data emoji` as commands: what is printed, written and returned."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from renaissance.cli.doctoring import read_vocabulary
from renaissance.data import emoji
from renaissance.data.prepared import Prepared, Writer
from renaissance.errors import DataError, MissingPackageError

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

pytest.importorskip("imagehash", reason="needs: pip install 'renaissance-vl[doctor]'")


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    image = Image.radial_gradient("L").resize((40, 40)).rotate(40 * number)
    Image.merge("RGB", (image, image.transpose(Image.Transpose.ROTATE_90), Image.new("L", (40, 40), 40 * number))).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, of which one is trained and tested on."""
    with Writer(tmp_path / "data") as writer:
        for number in range(3):
            writer.image(str(number), picture(number), f"{number}.png")
        for split, number in (("train", 0), ("train", 1), ("test", 1), ("test", 2)):
            writer.item(split, f"item {number}", images=[str(number)], texts=["a cup"], label="cup")
        writer.finish({"layout": "flickr30k"})
    return tmp_path / "data"


def test_a_leak_ends_with_exit_code_4_and_its_name(cli: Cli, folder: Path) -> None:
    result = cli("data", "doctor", str(folder))
    assert result.code == 4
    assert "1 of 2" in result.out
    assert result.err.startswith("renaissance: The doctor found leaks: data/train:data/test (accept one with --waive")


def test_a_waived_leak_is_shown_and_no_failure(cli: Cli, folder: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = cli("data", "doctor", str(folder), "--waive", "data/train:data/test", "--json", str(report))
    assert (result.code, result.err) == (0, "")
    assert "leak, waived" in result.out
    assert result.out.endswith("No faults, no leaks.\n")
    data = json.loads(report.read_text(encoding="utf-8"))
    assert (data["faults"], data["leaks"], data["overlaps"][0]["waived"]) == (0, [], True)


def test_faults_are_counted_and_the_report_is_written_first(cli: Cli, folder: Path, tmp_path: Path) -> None:
    vocabulary = tmp_path / "labels.txt"
    vocabulary.write_text("plate\n")
    report = tmp_path / "report.json"
    waived = ("--waive", "data/train:data/test")
    result = cli("data", "doctor", str(folder), "--vocabulary", str(vocabulary), "--json", str(report), *waived)
    assert result.code == 4
    assert result.err == "renaissance: The doctor found 4 faults.\n"
    assert json.loads(report.read_text(encoding="utf-8"))["faults"] == 4


def test_a_model_tells_what_its_backbones_were_trained_on(cli: Cli, folder: Path) -> None:
    pytest.importorskip("renaissance_plugin_packaged")
    spec = "packaged:efficientnet-lite0 + packaged:minilm, two-tower"
    result = cli("data", "doctor", f"{folder}", "--waive", "data/train:data/test", "--model", spec)
    assert result.code == 4
    assert "Flickr30k captions (test included)" in result.out
    assert "leaks: packaged:minilm:data/test" in result.err


def test_without_data_the_folder_is_named(cli: Cli, tmp_path: Path) -> None:
    result = cli("data", "doctor", str(tmp_path / "nowhere"))
    assert result.code == 4
    assert "nowhere" in result.err


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", '["cup", "red"]'), ("a.json", '{"cup": 0, "red": 1}'), ("a.txt", "cup\n\nred\n")]
)
def test_a_vocabulary_is_a_list_an_object_or_lines(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_vocabulary(tmp_path / name) == {"cup", "red"}


@pytest.mark.parametrize(("name", "text"), [("a.json", "[1]"), ("a.json", "{"), ("a.json", "3"), ("gone.txt", None)])
def test_what_is_no_vocabulary_is_told(name: str, text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="The vocabulary "):
        read_vocabulary(tmp_path / name)


def test_emoji_are_written_with_their_licences(cli: Cli, tmp_path: Path) -> None:
    try:
        emoji.check_packages()
    except MissingPackageError as missing:
        pytest.skip(str(missing))
    out = tmp_path / "emoji"
    result = cli("data", "emoji", str(out), "--languages", "en,fr", "--limit", "30", "--image-size", "16")
    assert result.code == 0
    assert "CC BY-SA 4.0" in result.err
    assert "train-fr" in result.out
    assert Prepared(out).manifest["languages"] == ["en", "fr"]
