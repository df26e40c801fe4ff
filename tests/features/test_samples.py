from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from renaissance.api import Features, VisionInput
from renaissance.data.readers.sources import FileImage
from renaissance.data.records import Record
from renaissance.errors import SampleError
from renaissance.features.samples import image_digests, store_images
from renaissance.toolkit.images import ImageProcessor


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 8, 8)
        self.processor = ImageProcessor((16, 16), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    def forward(self, inputs: VisionInput) -> Features:
        tokens = self.patches(inputs.pixels.float()).flatten(2).transpose(1, 2)
        return Features(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


def records(folder: Path) -> list[Record]:
    """Return three records: the second's file is what a test makes of it."""
    for name in ("0.png", "1.png", "2.png"):
        Image.new("RGB", (20, 20), (int(name[0]), 0, 0)).save(folder / name)
    return [Record(str(i), FileImage(str(folder / f"{i}.png")), ("a",), f"captions.csv, row {i + 1}") for i in range(3)]


def test_an_image_that_cannot_be_decoded_is_told_with_its_row_and_leaves_no_store(tmp_path: Path) -> None:
    found = records(tmp_path)
    (tmp_path / "1.png").write_bytes(b"no picture")
    with pytest.raises(SampleError, match=r"captions\.csv, row 2: .*1\.png: not an image"):
        store_images(tmp_path / "store", Tower().eval(), found, config={})
    assert list((tmp_path / "store").iterdir()) == []


def test_an_image_that_is_missing_is_told_with_its_row(tmp_path: Path) -> None:
    found = records(tmp_path)
    (tmp_path / "1.png").unlink()
    with pytest.raises(SampleError, match=r"captions\.csv, row 2: The image file .*1\.png' cannot be read"):
        image_digests(found)
