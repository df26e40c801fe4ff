"""SNLI-VE: hypotheses on Flickr30k's images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renaissance.data.prepared import Prepared
from renaissance.errors import DataError, SampleError
from tests.data.readers_labelled.corpora import ids, only, skipped, write_images, write_lines

Prepare = Callable[..., Prepared]


def row(number: int = 0, **changed: Any) -> dict[str, Any]:
    return {
        "annotator_labels": ["neutral"],
        "captionID": "3416050480.jpg#4",
        "gold_label": "neutral",
        "pairID": f"3416050480.jpg#4r{number}n",
        "sentence1": "A man in a hat.",
        "sentence2": "A man waits for a friend.",
        "Flickr30K_ID": "3416050480",
        **changed,
    }


def write_corpus(root: Path, *rows: dict[str, Any]) -> None:
    write_lines(root / "snli_ve_dev.jsonl", rows)
    write_images(root / "flickr30k-images", "3416050480.jpg")


def test_the_text_is_the_hypothesis_alone(root: Path, prepared: Prepare) -> None:
    write_corpus(root, row())
    item = only(prepared("snli-ve", root), "dev")
    assert (item.id, item.texts) == ("3416050480.jpg#4r0n", ("A man waits for a friend.",))
    assert (item.label, item.fields) == ("neutral", {})
    assert item.images[0].name.endswith("flickr30k:3416050480")


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"gold_label": "-"}, "the label '-' is none of contradiction, neutral, entailment"),
        ({"sentence2": None}, "'sentence2': the text is missing"),
        ({"Flickr30K_ID": "/etc/passwd"}, "leads out of 'flickr30k-images'"),
        ({"Flickr30K_ID": "1"}, "1.jpg' cannot be read"),
        ({"pairID": "3416050480.jpg#4r0n"}, "stands twice in 'dev'"),
    ],
)
def test_a_line_that_cannot_be_used_is_told_of(
    root: Path, prepared: Prepare, changed: dict[str, Any], fault: str
) -> None:
    write_corpus(root, row(), row(1, **changed))
    with pytest.raises(SampleError, match=r"^snli_ve_dev.jsonl, line 2: ") as error:
        prepared("snli-ve", root)
    assert fault in str(error.value)
    data = prepared("snli-ve", root, "skip")
    assert ids(data, "dev") == ["3416050480.jpg#4r0n"]
    assert len(skipped(data)) == 1


def test_missing_files_are_named_with_the_page(root: Path, prepared: Prepare) -> None:
    with pytest.raises(DataError, match=r"'snli_ve_\*.jsonl', 'flickr30k-images/'.*github.com/necla-ml/SNLI-VE"):
        prepared("snli-ve", root)
