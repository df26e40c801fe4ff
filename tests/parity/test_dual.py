"""Dual encoders: the identity of similarity and `embed`, and open_clip's features, logits and loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor

from renaissance.container import load
from renaissance.importing import import_checkpoint
from renaissance.pretrained import Model
from tests.importing.open_clip_models import CAPTIONS, Case, case_of, noise_pictures
from tests.parity.dual_batches import batch_of, contrast

KINDS = ("ViT-B-32", "towers narrower than the space", "timm vision", "SigLIP-like")


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return case_of(request.param, tmp_path)


@pytest.fixture
def ours(case: Case, tmp_path: Path) -> Any:
    """Return the model with open_clip's weights, each tensor copied once."""
    import_checkpoint("open-clip", case.path, tmp_path / "ours", **case.options)
    return load(tmp_path / "ours")


def theirs(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Return open_clip's image and text features [3, W], and the scale of its logits."""
    images, texts = case.features(noise_pictures())
    return images, texts, case.whole.logit_scale.detach().exp()


# --- the identity ---------------------------------------------------------------------------------------------------


def test_the_similarity_of_a_dual_encoder_is_the_dot_product_of_embed(
    tiny_model: Callable[..., Any], tiny_batch: Callable[..., Any], parity: Callable[[str], Any]
) -> None:
    assembly = tiny_model(("itc",), fusion="dual").eval()
    batch = tiny_batch(assembly)
    pictures = [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in batch.images.pixels]
    captions = ["a red cup on a table", "two blue cups", "a green tree beside a small white house", "a dog"]
    with torch.no_grad():
        similarity = contrast(assembly, batch).published["similarity"]
        scale = assembly.tasks["itc"].log_scale.exp()
    images, texts = Model(assembly).embed(pictures, captions)
    assert images is not None
    assert texts is not None
    compare = parity("identity: similarity of `dual` is the dot product of `embed`")
    compare.close("similarity", similarity / scale, images @ texts.T)
    one_by_one = torch.cat([Model(assembly).embed(texts=caption).texts for caption in captions])
    compare.close("texts one by one", texts, one_by_one)


# --- open_clip ------------------------------------------------------------------------------------------------------


def test_features_are_those_of_open_clip(case: Case, ours: Any, parity: Callable[[str], Any]) -> None:
    images, texts, _ = theirs(case)
    found = Model(ours).embed(noise_pictures(), list(CAPTIONS))
    compare = parity(case.reference)
    compare.close(f"{case.kind}: image features", found.images, images)
    compare.close(f"{case.kind}: text features", found.texts, texts)


def test_logits_are_those_of_open_clip(case: Case, ours: Any, parity: Callable[[str], Any]) -> None:
    images, texts, scale = theirs(case)
    bias = 0.0 if case.whole.logit_bias is None else case.whole.logit_bias.detach()
    with torch.no_grad():
        logits = contrast(ours, batch_of(ours, noise_pictures())).published["similarity"]
    if case.whole.logit_bias is not None:
        logits = logits + ours.tasks["itc"].bias
    parity(case.reference).close(f"{case.kind}: logits", logits, scale * images @ texts.T + bias)


def test_the_loss_is_that_of_open_clip(case: Case, ours: Any, parity: Callable[[str], Any]) -> None:
    images, texts, scale = theirs(case)
    with torch.no_grad():
        lost = contrast(ours, batch_of(ours, noise_pictures()))
    if case.whole.logit_bias is None:
        name, expected = "ClipLoss", open_clip.loss.ClipLoss()(images, texts, scale)
    else:
        name, bias = "SigLipLoss", case.whole.logit_bias.detach()
        expected = open_clip.loss.SigLipLoss()(images, texts, scale, bias)
    parity(f"open_clip.{name}").close(f"{case.kind}: loss", lost.sum / lost.count, expected)


@pytest.mark.parametrize("case", ["ViT-B-32"], indirect=True)
def test_gradients_of_the_loss_are_those_of_open_clip(case: Case, ours: Any) -> None:
    pictures = noise_pictures()
    pixels = torch.stack([open_clip.image_transform(32, is_train=False)(picture) for picture in pictures])
    images, texts, scale = case.whole(pixels, open_clip.tokenize(list(CAPTIONS)))
    open_clip.loss.ClipLoss()(images, texts, scale).backward()
    lost = contrast(ours, batch_of(ours, pictures))
    (lost.sum / lost.count).backward()
    fusion, visual = ours.encoder.fusion, ours.encoder.vision.visual
    pairs = (
        (ours.tasks["itc"].log_scale.grad, case.whole.logit_scale.grad),
        (fusion.vision_projection.weight.grad, case.whole.visual.proj.grad.T),
        (visual.conv1.weight.grad, case.whole.visual.conv1.weight.grad),
        (ours.encoder.text.tower.positional_embedding.grad, case.whole.positional_embedding.grad),
    )
    for own, reference in pairs:
        assert float(reference.abs().max()) > 1e-4
        torch.testing.assert_close(own, reference, atol=1e-5, rtol=1e-4)
