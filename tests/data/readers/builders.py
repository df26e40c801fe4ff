"""Small corpora in their published layouts, of pictures that all differ."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from renaissance.data.layouts import Problems, RawItem
from renaissance.data.readers.published import LAYOUTS

SPLITS = ("train", "restval", "val", "test")


def encoded(number: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (number % 256, number // 256, 7)).save(buffer, kind)
    return buffer.getvalue()


def read_all(layout: str, root: Path, *, skip: bool = False) -> tuple[list[RawItem], Problems]:
    """Return what the reader of a layout gives, and what it found wrong."""
    problems = Problems("skip" if skip else "error")
    return list(LAYOUTS[layout].reader()(root, problems)), problems


def coco(root: Path, images: int = 4, captions: int = 5, words: int = 3) -> dict[str, Any]:
    """Write COCO captions; return what was written to the split file."""
    entries = []
    for number in range(images):
        split = SPLITS[number % 4]
        folder = "train2014" if split == "train" else "val2014"
        name = f"COCO_{folder}_{number:012d}.jpg"
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / name).write_bytes(encoded(number))
        told = [f"Picture {number} " + " ".join(f"word{number + place}" for place in range(words)) + f" {caption}."
                for caption in range(captions)]  # fmt: skip
        entries.append(
            {
                "filepath": folder,
                "sentids": list(range(captions)),
                "filename": name,
                "imgid": number,
                "split": split,
                "sentences": [
                    {"tokens": text.lower().split(), "raw": text, "imgid": number, "sentid": place}
                    for place, text in enumerate(told)
                ],
                "cocoid": number,
            }
        )
    file = {"images": entries, "dataset": "coco"}
    (root / "dataset_coco.json").write_text(json.dumps(file))
    return file


def flickr30k(root: Path, images: int = 3) -> None:
    (root / "flickr30k-images").mkdir(parents=True)
    entries = []
    for number in range(images):
        (root / "flickr30k-images" / f"10{number}.jpg").write_bytes(encoded(number))
        sentences = [{"raw": f"Picture {number}, caption {caption}.", "sentid": caption} for caption in range(5)]
        split = ("train", "val", "test")[number % 3]
        entries.append({"split": split, "filename": f"10{number}.jpg", "imgid": number, "sentences": sentences})
    (root / "dataset_flickr30k.json").write_text(json.dumps({"images": entries, "dataset": "flickr30k"}))


def visual_genome(root: Path, *, facts: bool = True) -> None:
    entries, others = [], []
    for number in (1, 2):
        folder = root / ("VG_100K" if number == 1 else "VG_100K_2")
        folder.mkdir(parents=True)
        (folder / f"{number}.jpg").write_bytes(encoded(number))
        regions = [
            {"region_id": place, "image_id": number, "phrase": f"thing {place} of {number}", "x": place, "y": 1,
             "width": 3, "height": 2}
            for place in range(3)
        ]  # fmt: skip
        entries.append({"id": number, "regions": regions})
        others.append({"image_id": number, "coco_id": 391895 if number == 1 else None, "flickr_id": 7})
    (root / "region_descriptions.json").write_text(json.dumps(entries))
    if facts:
        (root / "image_data.json").write_text(json.dumps(others))


def shard(file: Path, members: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> Path:
    """Write a tar file with these members."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, data in members.items() if isinstance(members, Mapping) else members:
            facts = tarfile.TarInfo(name)
            facts.size = len(data)
            archive.addfile(facts, io.BytesIO(data))
    return file
