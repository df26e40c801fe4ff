from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from renaissance.toolkit.pairing import belonging, first_of_equal, other_images, positives, told_together

CHECKS = settings(deadline=None, max_examples=150, derandomize=True)
few_keys = st.integers(1, 4)


def batch(images: list[list[int]], texts: list[int]) -> tuple[Tensor, Tensor]:
    widest = max(map(len, images))
    return torch.tensor([keys + [0] * (widest - len(keys)) for keys in images]), torch.tensor(texts)


batches = st.builds(
    batch,
    st.lists(st.lists(few_keys, min_size=1, max_size=3), min_size=1, max_size=6),
    st.lists(few_keys, min_size=1, max_size=6),
)


@given(sample=batches)
@CHECKS
def test_a_text_belongs_to_the_images_that_have_an_equal_caption(sample: tuple[Tensor, Tensor]) -> None:
    captions, texts = sample
    found = positives(captions, texts)
    naive = [[int(text) in row.tolist() for text in texts] for row in captions]
    assert found.tolist() == naive


@given(sample=batches, seed=st.integers(0, 2**62))
@CHECKS
def test_a_false_image_has_no_caption_equal_to_the_text(sample: tuple[Tensor, Tensor], seed: int) -> None:
    captions, texts = sample
    belongs = positives(captions, texts)
    chosen = other_images(belongs, torch.arange(len(texts)) + seed)
    for pair, image in enumerate(chosen.tolist()):
        allowed = [v for v, keys in enumerate(captions.tolist()) if int(texts[pair]) not in keys]
        assert image in allowed if allowed else image == -1


def test_every_other_image_is_drawn_equally_often() -> None:
    belongs = torch.zeros((5, 20_000), dtype=torch.bool)
    belongs[2] = True
    counts = torch.bincount(other_images(belongs, torch.arange(20_000)), minlength=5)
    assert counts[2] == 0
    assert float((counts[counts > 0] / 5_000 - 1).abs().max()) < 0.06


def test_a_draw_depends_on_its_own_key_alone() -> None:
    belongs = torch.eye(6, dtype=torch.bool)
    keys = torch.arange(6) * 17
    whole = other_images(belongs, keys)
    alone = torch.cat([other_images(belongs[:, i : i + 1], keys[i : i + 1]) for i in range(6)])
    assert torch.equal(whole, alone)


@given(keys=st.lists(st.integers(1, 5), max_size=12))
@CHECKS
def test_the_first_of_equal_keys_is_kept(keys: list[int]) -> None:
    found = first_of_equal(torch.tensor(keys, dtype=torch.int64))
    assert found.tolist() == [key not in keys[:place] for place, key in enumerate(keys)]


def test_rows_of_one_image_share_the_captions_that_any_of_them_tells() -> None:
    captions, texts = batch([[1, 2], [3], [4]], [1, 2, 3, 4])
    images = torch.tensor([7, 8, 7])
    assert belonging(captions, images, texts).int().tolist() == [[1, 1, 0, 1], [0, 0, 1, 0], [1, 1, 0, 1]]


@given(sample=batches)
@CHECKS
def test_rows_of_different_images_have_their_own_captions_alone(sample: tuple[Tensor, Tensor]) -> None:
    captions, texts = sample
    assert torch.equal(belonging(captions, torch.arange(len(captions)), texts), positives(captions, texts))


def test_captions_of_one_image_are_put_together() -> None:
    captions, _ = batch([[1, 2], [3], [4]], [1])
    assert told_together(captions, torch.tensor([7, 8, 7])).tolist() == [[1, 2, 4, 0], [3, 0, 0, 0], [1, 2, 4, 0]]
    assert told_together(captions, torch.arange(3)).tolist() == captions.tolist()
