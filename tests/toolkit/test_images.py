from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from renaissance.errors import ModelFileError, SampleError, SpecError
from renaissance.toolkit.images import ImageProcessor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def processor(**changes: Any) -> ImageProcessor:
    return ImageProcessor(**{"image_size": (32, 32), "mean": MEAN, "std": STD, **changes})


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("width", "height"), [(90, 60), (60, 90), (41, 40), (32, 32), (7, 200)])
def test_equals_resize_and_centre_crop_of_torchvision(width: int, height: int, interpolation: Any) -> None:
    image = picture(width, height)
    plain = v2.Compose([v2.Resize(36, v2.InterpolationMode(interpolation)), v2.CenterCrop(32)])(image)
    pixels = processor(crop=32 / 36, interpolation=interpolation)([image]).pixels[0]
    assert torch.equal(pixels, torch.from_numpy(np.array(plain)).permute(2, 0, 1))


def test_size_before_the_crop_rounds_down_as_in_timm() -> None:
    image = picture(400, 300)
    plain = v2.Compose([v2.Resize(248, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224)])(image)
    pixels = processor(image_size=(224, 224), crop=0.9)([image]).pixels[0]
    assert torch.equal(pixels, torch.from_numpy(np.array(plain)).permute(2, 0, 1))


def test_squash_keeps_the_whole_picture_and_no_proportions() -> None:
    image = picture(90, 60)
    pixels = processor(image_size=(24, 32), resize="squash")([image]).pixels[0]
    assert torch.equal(
        pixels, torch.from_numpy(np.array(image.resize((32, 24), Image.Resampling.BICUBIC))).permute(2, 0, 1)
    )


@pytest.mark.parametrize("size", [(24, 48), (48, 24)])
@pytest.mark.parametrize("picture_size", [(90, 60), (60, 90), (500, 20)])
def test_pictures_fill_frames_that_are_no_square(size: tuple[int, int], picture_size: tuple[int, int]) -> None:
    white = Image.new("RGB", picture_size, "white")
    pixels = processor(image_size=size)([white]).pixels
    assert pixels.shape == (1, 3, *size)
    assert bool((pixels == 255).all())


def test_normalise_scales_bytes_and_leaves_floats_alone() -> None:
    pixels = processor()([picture(), picture(seed=1)]).pixels
    floats = processor().normalise(pixels)
    expected = (pixels.float() / 255 - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    assert torch.equal(floats, expected)
    assert processor().normalise(floats) is floats


def test_no_images_give_an_empty_batch() -> None:
    assert processor()([]).pixels.shape == (0, 3, 32, 32)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    chosen = processor(crop=0.9, resize="squash", interpolation="lanczos")
    chosen.save(tmp_path)
    assert ImageProcessor.load(tmp_path) == chosen
    assert json.loads(json.dumps(chosen.describe())) == chosen.describe()


def test_resized_changes_the_size_alone() -> None:
    assert processor(crop=0.9).resized((64, 48)) == dataclasses.replace(processor(crop=0.9), image_size=(64, 48))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"image_size": (0, 32)}, "image_size"),
        ({"crop": 1.5}, "crop"),
        ({"resize": "stretch"}, "resize"),
        ({"interpolation": "cubic"}, "interpolation"),
        ({"mean": (0.5, 0.5)}, "mean"),
        ({"std": (0.5, 0.0, 0.5)}, "std"),
    ],
)
def test_values_out_of_range_are_refused_by_name(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(SpecError, match=fault):
        processor(**change)


def test_images_that_are_not_rgb_are_refused() -> None:
    with pytest.raises(SampleError, match=r"Image 1 of 2 has mode 'L'"):
        processor()([picture(), picture().convert("L")])


@pytest.mark.parametrize("content", ["", "[]", '{"image_size": [32, 32]}'])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "preprocessor.json").write_text(content)
    with pytest.raises(ModelFileError, match=r"preprocessor\.json"):
        ImageProcessor.load(tmp_path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"preprocessor\.json"):
        ImageProcessor.load(tmp_path)
