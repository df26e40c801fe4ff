from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from renaissance.errors import ModelFileError, SampleError, SpecError
from renaissance.toolkit.images import ImageProcessor, batched

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def processor(**changes: Any) -> ImageProcessor:
    return ImageProcessor(**{"image_size": (32, 32), "mean": MEAN, "std": STD, **changes})


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture as smooth as photographs are: noise of several sizes, each half as strong as the next larger."""
    layers = [picture(max(1, width // step), max(1, height // step), seed + step) for step in (32, 16, 8, 4, 2)]
    grown = [np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64) for layer in layers]
    mixed = sum(layer / 2**number for number, layer in enumerate(grown, start=1))
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def decibels(pixels: torch.Tensor, expected: Image.Image) -> float:
    difference = pixels.double() - torch.from_numpy(np.array(expected)).permute(2, 0, 1)
    return 10 * math.log10(255**2 / max(float(difference.square().mean()), 1e-9))


def chain(size: int, crop: int, interpolation: str) -> v2.Compose:
    return v2.Compose([v2.Resize(size, v2.InterpolationMode(interpolation)), v2.CenterCrop(crop)])


@pytest.mark.parametrize("interpolation", ["nearest", "lanczos"])
@pytest.mark.parametrize(("width", "height"), [(90, 60), (60, 90), (41, 40), (32, 32), (7, 200)])
def test_equals_resize_and_centre_crop_of_torchvision(width: int, height: int, interpolation: Any) -> None:
    image = picture(width, height)
    pixels = processor(crop=32 / 36, interpolation=interpolation)([image]).pixels[0]
    assert decibels(pixels, chain(36, 32, interpolation)(image)) > 130


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), [(90, 60), (60, 90), (41, 40), (36, 36), (7, 200)])
def test_without_a_window_it_is_within_two_levels_of_torchvision(width: int, height: int, interpolation: Any) -> None:
    image = picture(width, height)
    pixels = processor(crop=32 / 36, interpolation=interpolation)([image]).pixels[0]
    expected = torch.from_numpy(np.array(chain(36, 32, interpolation)(image))).permute(2, 0, 1)
    assert int((pixels.int() - expected.int()).abs().max()) <= 2


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (640, 427), (427, 640), (500, 333), (1023, 681), (300, 200), (120, 90), (900, 60)]
)
def test_a_window_of_a_photograph_is_within_45_decibels_of_torchvision(
    width: int, height: int, interpolation: Any
) -> None:
    image = photo(width, height)
    pixels = processor(image_size=(224, 224), crop=0.875, interpolation=interpolation)([image]).pixels[0]
    assert decibels(pixels, chain(256, 224, interpolation)(image)) > 45


@pytest.mark.parametrize("resized", [255, 256, 257])
@pytest.mark.parametrize("length", [254, 255, 256, 257, 258])
def test_a_side_that_nearly_keeps_its_size_is_resized_all_the_same(length: int, resized: int) -> None:
    image = photo(length, length)
    pixels = processor(image_size=(224, 224), crop=224 / resized)([image]).pixels[0]
    assert decibels(pixels, chain(resized, 224, "bicubic")(image)) > 45


def test_size_before_the_crop_rounds_down_as_in_timm() -> None:
    image = photo(400, 300)
    pixels = processor(image_size=(224, 224), crop=0.9)([image]).pixels[0]
    assert decibels(pixels, chain(248, 224, "bicubic")(image)) > 50
    assert decibels(pixels, chain(249, 224, "bicubic")(image)) < 40


def test_squash_keeps_the_whole_picture_and_no_proportions() -> None:
    image = photo(90, 60)
    pixels = processor(image_size=(24, 32), resize="squash")([image]).pixels[0]
    assert decibels(pixels, image.resize((32, 24), Image.Resampling.BICUBIC)) > 50


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_a_picture_and_its_pixels_give_the_same(interpolation: Any) -> None:
    chosen = processor(crop=0.9, interpolation=interpolation)
    pixels = torch.from_numpy(np.array(picture())).permute(2, 0, 1)
    assert torch.equal(chosen([pixels]).pixels, chosen([picture()]).pixels)
    assert torch.equal(chosen([pixels.contiguous()]).pixels, chosen([picture()]).pixels)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_a_part_is_cut_out_and_then_resized(interpolation: Any) -> None:
    image = photo(90, 60)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    part = processor(interpolation=interpolation).fit_part(pixels, top=5, left=20, height=40, width=50)
    plain = image.crop((20, 5, 70, 45)).resize((32, 32), Image.Resampling[interpolation.upper()])
    assert decibels(part, plain) > 50


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1)])
def test_a_long_and_thin_picture_is_resized_where_it_is_seen_alone(size: tuple[int, int]) -> None:
    middle = Image.new("RGB", size, "black")
    middle.paste("white", (size[0] * 3 // 8, size[1] * 3 // 8, size[0] * 5 // 8 + 1, size[1] * 5 // 8 + 1))
    assert bool((processor(image_size=(224, 224))([middle]).pixels == 255).all())


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


@pytest.mark.parametrize(
    "pixels",
    [torch.zeros(3, 8, 8), torch.zeros(8, 8, 3, dtype=torch.uint8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)],
)
def test_tensors_that_are_no_pixels_are_refused(pixels: torch.Tensor) -> None:
    with pytest.raises(SampleError, match=r"Image 0 of 1 is torch.*Give uint8 pixels"):
        processor()([pixels])


@pytest.mark.parametrize(
    ("size", "share", "reduction"),
    [
        ((480, 640), None, 1),
        ((921, 1500), None, 1),  # of the 256 pixels that are wanted, less than 1.8 times as many would be left
        ((922, 1500), None, 2),
        ((1500, 922), None, 2),
        ((2048, 2048), None, 4),
        ((5000, 5000), None, 8),
        ((2048, 2048), 0.5, 2),  # a tall part of half the area has 1,254 pixels at its shorter side
        ((1024, 1024), 0.5, 1),
        ((20, 20), None, 1),
    ],
)
def test_a_picture_is_decoded_smaller_only_where_far_more_pixels_than_are_wanted_are_left(
    size: tuple[int, int], share: float | None, reduction: int
) -> None:
    assert processor(image_size=(224, 224), crop=0.875).reduction(*size, share) == reduction


def test_how_files_are_decoded_is_saved_and_files_of_before_are_decoded_exactly(tmp_path: Path) -> None:
    fast = processor(decoding="fast")
    fast.save(tmp_path)
    assert ImageProcessor.load(tmp_path) == fast
    assert "decoding" not in processor().describe()
    processor().save(tmp_path)
    assert ImageProcessor.load(tmp_path).decoding == "exact"
    (tmp_path / "preprocessor.json").write_text(json.dumps({**fast.describe(), "decoding": "slow"}))
    with pytest.raises(ModelFileError, match="decoding must be one of exact, fast, not 'slow'"):
        ImageProcessor.load(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"image_size": [32, 32]}'])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "preprocessor.json").write_text(content)
    with pytest.raises(ModelFileError, match=r"preprocessor\.json"):
        ImageProcessor.load(tmp_path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"preprocessor\.json"):
        ImageProcessor.load(tmp_path)


def test_images_of_one_size_are_stacked_without_a_mask() -> None:
    images = [torch.full((3, 4, 6), value, dtype=torch.uint8) for value in (1, 2)]
    inputs = batched(images)
    assert torch.equal(inputs.pixels, torch.stack(images))
    assert inputs.mask is None


def test_images_of_several_sizes_are_padded_and_the_mask_tells_the_real_pixels() -> None:
    wide, tall = (torch.full((3, *size), 9, dtype=torch.uint8) for size in ((4, 6), (8, 2)))
    inputs = batched([wide, tall])
    assert inputs.pixels.shape == (2, 3, 8, 6)
    assert inputs.mask is not None
    assert torch.equal(inputs.pixels[0, :, :4, :6], wide)
    assert torch.equal(inputs.pixels[1, :, :8, :2], tall)
    assert torch.equal(inputs.mask, (inputs.pixels == 9).all(1))
    assert inputs.mask.sum((1, 2)).tolist() == [24, 16]
