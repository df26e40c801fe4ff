from __future__ import annotations

import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from renaissance.data.augment import augment, random_part
from renaissance.recipe.training import Augmentation
from renaissance.toolkit.images import ImageProcessor

PROCESSOR = ImageProcessor((32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
FULL = Augmentation(crop=(0.5, 1.0), flip=True, randaugment=2, magnitude=9)


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))


def augmented(seed: int) -> list[int]:
    return augment(picture(), PROCESSOR, FULL, seed).flatten().tolist()


def test_without_augmentation_it_is_the_evaluation() -> None:
    assert torch.equal(augment(picture(), PROCESSOR, Augmentation(), 5), PROCESSOR([picture()]).pixels[0])


@pytest.mark.parametrize(
    "augmentation",
    [FULL, Augmentation(flip=True), Augmentation(crop=(0.2, 0.5)), Augmentation(randaugment=1)],
)
def test_the_seed_alone_decides(augmentation: Augmentation) -> None:
    results = []
    for state in (1, 2):
        torch.manual_seed(state)
        results.append([augment(picture(), PROCESSOR, augmentation, seed) for seed in range(8)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert len({result.numpy().tobytes() for result in results[0]}) > 1
    assert all(result.shape == (3, 32, 32) and result.dtype == torch.uint8 for result in results[0])


def test_the_global_generator_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    augment(picture(), PROCESSOR, FULL, 7)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_order_of_samples_changes_nothing() -> None:
    forwards = {seed: augmented(seed) for seed in (1, 2, 3)}
    assert {seed: augmented(seed) for seed in (3, 2, 1)} == forwards


def test_flips_mirror_about_half_of_the_pictures() -> None:
    plain = PROCESSOR([picture()]).pixels[0]
    results = [augment(picture(), PROCESSOR, Augmentation(flip=True), seed) for seed in range(100)]
    mirrored = [torch.equal(result, plain.flip(-1)) for result in results]
    assert all(flipped or torch.equal(result, plain) for flipped, result in zip(mirrored, results, strict=True))
    assert 30 < sum(mirrored) < 70


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (300, 300)])
def test_a_random_part_has_the_share_and_the_proportions_asked_for(size: tuple[int, int]) -> None:
    draws, shares = random.Random(0), []
    for _ in range(300):
        top, left, height, width = random_part(*size, (0.3, 0.6), draws)
        assert 0 <= top <= size[0] - height
        assert 0 <= left <= size[1] - width
        assert 0.74 < width / height < 1.35
        shares.append(height * width / (size[0] * size[1]))
    assert 0.29 < min(shares) < 0.33
    assert 0.57 < max(shares) < 0.61


def test_a_random_part_may_lie_anywhere() -> None:
    draws = random.Random(0)
    parts = [random_part(100, 100, (0.25, 0.25), draws) for _ in range(300)]
    assert {(height, width) for *_, height, width in parts} >= {(50, 50)}
    for first, length in ((0, 2), (1, 3)):
        assert min(part[first] for part in parts) < 3
        assert max(part[first] + part[length] for part in parts) > 97


@pytest.mark.parametrize(("size", "part"), [((10, 90), (0, 38, 10, 13)), ((90, 10), (38, 0, 13, 10))])
def test_where_no_random_part_fits_it_is_the_middle(size: tuple[int, int], part: tuple[int, ...]) -> None:
    assert random_part(*size, (1.0, 1.0), random.Random(0)) == part


@pytest.mark.slow
def test_another_process_gives_the_same() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(augmented, 11).result() == augmented(11)
