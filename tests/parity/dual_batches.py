"""What `itc` says of a batch of pictures with captions of different lengths, so that all but one are padded."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from renaissance.api import Batch, VisionInput
from renaissance.data.captions import caption_key
from renaissance.training.encoded import EncodedBatch
from tests.importing.open_clip_models import CAPTIONS


def contrast(assembly: Any, batch: Batch) -> Any:
    """Return what ITC says of a batch: sum, count and the similarities that it publishes."""
    return assembly.tasks["itc"].loss(EncodedBatch(assembly.encoder, batch, {}), None, None, batch)


def batch_of(assembly: Any, pictures: list[Image.Image]) -> Batch:
    """Return pictures with one caption each."""
    keys = torch.tensor([caption_key(caption) for caption in CAPTIONS])
    texts = assembly.encoder.text.processor(list(CAPTIONS))
    assert not texts.mask.all()
    each = torch.arange(len(pictures))
    images: VisionInput = assembly.encoder.vision.processor(pictures)
    return Batch(images, texts, torch.stack([each, each], 1), each * 0, each, each, keys.unsqueeze(1), keys, each, each)


def centred(pictures: list[Image.Image]) -> torch.Tensor:
    """Return pictures of the right size as pixels [V, 3, H, W] from -1 to 1."""
    import numpy as np

    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
    return pixels / 255 * 2 - 1
