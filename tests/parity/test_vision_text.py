"""VisionTextDualEncoderModel of transformers: tokens, features, logits and loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from renaissance.container import load
from renaissance.importing import import_checkpoint
from renaissance.pretrained import Model
from tests.importing.described_models import saved, vision_text_model
from tests.importing.open_clip_models import CAPTIONS, noise_pictures
from tests.parity.dual_batches import batch_of, centred, contrast


@pytest.mark.parametrize(("vision", "text"), [("vit", "bert"), ("clip", "bert"), ("vit", "roberta")])
def test_an_imported_dual_encoder_is_that_of_transformers(
    vision: Any, text: Any, tmp_path: Path, parity: Callable[[str], Any]
) -> None:
    whole, compare = vision_text_model(vision, text), parity("transformers.VisionTextDualEncoderModel")
    import_checkpoint("vision-text-dual", saved(whole, tmp_path / "theirs"), tmp_path / "ours")
    ours: Any = load(tmp_path / "ours")
    pictures, texts = noise_pictures(), ours.encoder.text.processor(list(CAPTIONS))
    given = {"input_ids": texts.token_ids, "attention_mask": texts.mask.long(), "pixel_values": centred(pictures)}
    with torch.no_grad():
        expected = whole(**given, return_loss=True)
        tokens = ours.encoder.encode_text(texts).tokens
        lost = contrast(ours, batch_of(ours, pictures))
    found = Model(ours).embed(pictures, list(CAPTIONS))
    kind = f"{text} and {vision}: "
    compare.close(f"{kind}text tokens", tokens, expected.text_model_output.last_hidden_state, texts.mask)
    compare.close(f"{kind}image features", found.images, expected.image_embeds)
    compare.close(f"{kind}text features", found.texts, expected.text_embeds)
    compare.close(f"{kind}logits", lost.published["similarity"], expected.logits_per_image)
    compare.close(f"{kind}loss", lost.sum / lost.count, expected.loss)
