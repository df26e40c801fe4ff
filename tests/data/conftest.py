from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from renaissance.api import TokenizerFacts
from renaissance.data.readers.sources import FileImage
from renaissance.data.records import Record
from renaissance.toolkit.images import ImageProcessor
from renaissance.toolkit.text import WordTokenizer

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "pink", "black", "white", "gray")


def encoded(colour: str, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def picture() -> Callable[..., bytes]:
    return encoded


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with ten pictures, 0.png to 9.png, one of each colour."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, colour in enumerate(COLOURS):
        (folder / f"{number}.png").write_bytes(encoded(colour))
    return folder


@pytest.fixture
def write() -> Callable[..., Path]:
    """Write rows as JSONL, CSV or TSV, by the suffix."""

    def write_rows(path: Path, rows: Sequence[dict[str, object]]) -> Path:
        if path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            return path
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write_rows


@pytest.fixture
def records(pictures: Path) -> list[Record]:
    """Ten records with two captions each; number 3 and 7 have an equal caption."""
    found = []
    for number, colour in enumerate(COLOURS):
        captions: tuple[str, ...] = (f"a {colour} square", f"something {colour}")
        if number in (3, 7):
            captions = ("a nice square", "A  nice square.")[number == 7 :][:1]
        image = FileImage(str(pictures / f"{number}.png"))
        found.append(Record(f"picture-{number}", image, captions, f"captions.jsonl, row {number + 1}"))
    return found


@pytest.fixture(scope="session")
def images() -> ImageProcessor:
    return ImageProcessor((8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture(scope="session")
def texts() -> WordTokenizer:
    words = ["[PAD]", "[UNK]", "[MASK]", "a", "A", "nice", "square", "something", *COLOURS]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return WordTokenizer(tokenizer, TokenizerFacts(len(words), 0, 2, (0, 1, 2), 16))
