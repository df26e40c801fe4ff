"""CLIPModel of transformers: features, logits and loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch

from renaissance.container import load
from renaissance.importing import import_checkpoint
from renaissance.pretrained import Model
from tests.importing.clip_models import OPTIONS, clip_model, written
from tests.importing.open_clip_models import CAPTIONS, SIZE, noise_pictures
from tests.parity.dual_batches import batch_of, contrast


def test_an_imported_clip_is_that_of_transformers(tmp_path: Path, parity: Callable[[str], Any]) -> None:
    whole, pictures, compare = clip_model(), noise_pictures(), parity("transformers.CLIPModel")
    import_checkpoint("clip", written(whole.state_dict(), tmp_path), tmp_path / "out", **OPTIONS)
    ours: Any = load(tmp_path / "out")
    pixels = torch.stack([open_clip.image_transform(SIZE, is_train=False)(picture) for picture in pictures])
    with torch.no_grad():
        expected = whole(input_ids=open_clip.tokenize(list(CAPTIONS)), pixel_values=pixels, return_loss=True)
        lost = contrast(ours, batch_of(ours, pictures))
    found = Model(ours).embed(pictures, list(CAPTIONS))
    compare.close("image features", found.images, expected.image_embeds)
    compare.close("text features", found.texts, expected.text_embeds)
    compare.close("logits", lost.published["similarity"], expected.logits_per_image)
    compare.close("loss", lost.sum / lost.count, expected.loss)
