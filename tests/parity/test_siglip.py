"""SigLIP: features, logits and loss of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from renaissance.container import load
from renaissance.importing import import_checkpoint
from renaissance.pretrained import Model
from tests.importing.described_models import TEXTS, saved, siglip_model
from tests.importing.open_clip_models import CAPTIONS, noise_pictures
from tests.parity.dual_batches import batch_of, centred, contrast


def padded_ids(assembly: Any) -> torch.Tensor:
    """Return token ids [T, 24], padded to the longest as SigLIP was trained."""
    ids = assembly.encoder.text.processor(list(CAPTIONS)).token_ids
    return torch.nn.functional.pad(ids, (0, TEXTS - ids.shape[1]), value=assembly.encoder.text.processor.facts.pad_id)


def test_an_imported_siglip_is_that_of_transformers(tmp_path: Path, parity: Callable[[str], Any]) -> None:
    whole, compare = siglip_model(), parity("transformers.SiglipModel")
    import_checkpoint("siglip", saved(whole, tmp_path / "theirs"), tmp_path / "ours")
    ours: Any = load(tmp_path / "ours")
    pictures = noise_pictures()
    pixels, ids = centred(pictures), padded_ids(ours)
    with torch.no_grad():
        expected = whole(input_ids=ids, pixel_values=pixels, return_loss=True)
        vision = ours.encoder.encode_vision(ours.encoder.vision.processor(pictures))
        text = ours.encoder.encode_text(ours.encoder.text.processor(list(CAPTIONS)))
        lost = contrast(ours, batch_of(ours, pictures))
    found = Model(ours).embed(pictures, list(CAPTIONS))
    length = text.mask.shape[1]
    compare.close("vision tokens", vision.tokens, expected.vision_model_output.last_hidden_state)
    compare.close("text tokens", text.tokens, expected.text_model_output.last_hidden_state[:, :length], text.mask)
    compare.close("image features", found.images, expected.image_embeds)
    compare.close("text features", found.texts, expected.text_embeds)
    compare.close("logits", lost.published["similarity"] + ours.tasks["itc"].bias, expected.logits_per_image)
    compare.close("loss", lost.sum / lost.count, expected.loss)


def test_the_scale_of_the_sigmoid_loss_is_not_bounded(tmp_path: Path, parity: Callable[[str], Any]) -> None:
    whole = siglip_model()
    whole.logit_scale.data.fill_(4.9)  # as large as that of the published models; CLIP's bound is log 100 = 4.6
    import_checkpoint("siglip", saved(whole, tmp_path / "theirs"), tmp_path / "ours")
    ours: Any = load(tmp_path / "ours")
    with torch.no_grad():
        scale = ours.tasks["itc"].scale
    parity("transformers.SiglipModel").close("scale", scale, whole.logit_scale.detach().exp().squeeze())
