"""Which images and texts belong together, and which pairs may serve as false ones.

Letters: V images, T texts, C most captions of an image, P pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from renaissance.toolkit.random import uniform


def positives(caption_keys: Tensor, text_keys: Tensor) -> Tensor:
    """Return bool [V, T]: text t is one of the captions of image v, or equal to one.

    caption_keys int64 [V, C] are the keys of all captions of each image, 0 where it has fewer; text_keys int64 [T].
    """
    return (caption_keys.unsqueeze(1) == text_keys[None, :, None]).any(-1)


def other_images(belongs: Tensor, keys: Tensor) -> Tensor:
    """Draw for each text an image that does not belong to it, all being equally likely.

    belongs bool [V, P]: image v belongs to the text of pair p; keys int64 [P] decide the draw.
    Returns int64 [P], -1 where every image belongs.
    """
    allowed = ~belongs.T  # [P, V]
    count = allowed.sum(1)
    nth = (uniform(keys, "other image", 1).squeeze(1) * count).long()  # [P]
    position = allowed.cumsum(1) - 1
    chosen = (allowed & (position == nth.unsqueeze(1))).int().argmax(1)
    return torch.where(count > 0, chosen, -1)


def first_of_equal(keys: Tensor) -> Tensor:
    """Return bool [T]: no earlier text has the same key int64 [T]."""
    same = keys.unsqueeze(0) == keys.unsqueeze(1)
    return ~same.tril(-1).any(1)
