"""From the published files to items that `renaissance data prepare items` reads: `test.jsonl` beside its images."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from renaissance.errors import DataError, OutputError

MMVP_PAGE = "https://huggingface.co/datasets/MMVP/MMVP_VLM"
NATURALBENCH_PAGE = "https://huggingface.co/datasets/BaiqiL/NaturalBench"
PHOTO = "a photo of "  # what the published script writes before each statement
OPTIONS = re.compile(r"^(?P<question>.*?)\s*Options?:\s*A:\s*(?P<a>.*?);\s*B:\s*(?P<b>.*?);?\s*$", re.S | re.I)
ANSWERS = {"yes_no": ("yes", "no"), "multiple_choice": ("A", "B")}
Row = Mapping[str, Any]


def convert_mmvp(root: Path, out: Path) -> int:
    """Write the items of MMVP-VLM, `Questions.csv` and `MLLM_VLM Images/`, into the new folder `out`; return how many.

    Raises:
        DataError: a file is missing, or is not as published.
        OutputError: `out` exists, or cannot be written.
    """
    table = _required(root / "Questions.csv", MMVP_PAGE)
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in list(csv.reader(file))[1:] if row]
    if not rows or len(rows) % 2 or any(len(row) != 3 for row in rows):
        raise DataError(
            f"'{table}' holds no pairs of rows with number, pattern and statement. Get it from {MMVP_PAGE}."
        )
    return _write(out, _mmvp_items(root, rows))


def _mmvp_items(root: Path, rows: list[list[str]]) -> Iterator[tuple[Row, dict[str, bytes]]]:
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        pattern = first[1].strip()
        files = {
            f"{number}.jpg": root / "MLLM_VLM Images" / pattern / f"{number}.jpg" for number, *_ in (first, second)
        }
        item = {
            "id": f"{first[0]}-{second[0]}",
            "images": list(files),
            "texts": [PHOTO + statement for *_, statement in (first, second)],
            "pattern": pattern,
        }
        yield item, {name: _required(path, MMVP_PAGE).read_bytes() for name, path in files.items()}


def convert_naturalbench(root: Path, out: Path) -> int:
    """Write the items of NaturalBench, `*.parquet` in `root` or its `data/`, into a new folder; return how many.

    Raises:
        DataError: a file is missing, or is not as published.
        OutputError: `out` exists, or cannot be written.
    """
    files = sorted(root.glob("*.parquet")) or sorted(root.glob("data/*.parquet"))
    if not files:
        raise DataError(f"'{root}' has no *.parquet, nor has its data/. Get them from {NATURALBENCH_PAGE}.")
    return _write(out, (_naturalbench_item(row, place) for place, row in _parquet_rows(files)))


def _parquet_rows(files: list[Path]) -> Iterator[tuple[str, Row]]:
    for file in files:
        try:
            number = 0
            for batch in pq.ParquetFile(file).iter_batches(batch_size=8):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file.name}, row {number}", row
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"'{file}' cannot be read ({error}). Get it again from {NATURALBENCH_PAGE}.") from None


def _naturalbench_item(row: Row, place: str) -> tuple[Row, dict[str, bytes]]:
    """Return an item and its images; answers stand as published: question 0 for both images, then question 1."""
    try:
        kind = row["Question_Type"] if "Question_Type" in row else row["Question Type"]
        texts = [text for number in (0, 1) for text in _answered(row[f"Question_{number}"], kind)]
        answers = [str(row[f"Image_{image}_Question_{question}"]) for question in (0, 1) for image in (0, 1)]
        images = {f"{row['Index']}-{number}.jpg": bytes(row[f"Image_{number}"]["bytes"]) for number in (0, 1)}
    except (LookupError, TypeError) as error:
        raise DataError(f"{place}: it is not as published ({error!r}). Get it from {NATURALBENCH_PAGE}.") from None
    item = {"id": str(row["Index"]), "images": list(images), "texts": texts, "answers": answers, "question_type": kind}
    return item, images


def _answered(question: str, kind: str) -> tuple[str, str]:
    """Return a question with each of its two answers; of options that are written out the words, else the letter."""
    written = OPTIONS.match(question) if kind == "multiple_choice" else None
    if written is not None:
        return f"{written['question']} {written['a']}", f"{written['question']} {written['b']}"
    first, second = ANSWERS[kind]
    return f"{question.strip()} {first}", f"{question.strip()} {second}"


def _write(out: Path, items: Iterator[tuple[Row, dict[str, bytes]]]) -> int:
    """Write `test.jsonl` and the images; all of it, or nothing."""
    if out.exists():
        raise OutputError(f"'{out}' exists already. Choose another folder, or remove it.")
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    count = 0
    try:
        unfinished.mkdir(parents=True)
        with (unfinished / "test.jsonl").open("w", encoding="utf-8") as file:
            for item, images in items:
                for name, data in images.items():
                    (unfinished / name).write_bytes(data)
                file.write(json.dumps(item) + "\n")
                count += 1
        unfinished.rename(out)
    except OSError as error:
        raise OutputError(f"'{out}' cannot be written ({error.strerror or error}).") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return count


def _required(path: Path, page: str) -> Path:
    if not path.is_file():
        raise DataError(f"There is no '{path}'. Get it from {page}.")
    return path
