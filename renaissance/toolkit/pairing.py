"""Which images and texts belong together, and which pairs may serve as false ones.

Letters: V images, T texts, C most captions of an image, P pairs, K candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from renaissance.api import Batch
from renaissance.toolkit.distributed import gather, offset
from renaissance.toolkit.random import uniform


def positives(caption_keys: Tensor, text_keys: Tensor) -> Tensor:
    """Return bool [V, T]: text t is one of the captions of image v, or equal to one.

    caption_keys int64 [V, C] are the keys of all captions of each image, 0 where it has fewer; text_keys int64 [T].
    """
    return (caption_keys.unsqueeze(1) == text_keys[None, :, None]).any(-1)


def belonging(caption_keys: Tensor, image_keys: Tensor, text_keys: Tensor) -> Tensor:
    """Return bool [V, T]: text t is a caption of the image of row v, as any row of the same image tells it.

    caption_keys int64 [V, C] as for `positives`; rows with the same key int64 [V] are of the same image. Rows that
    other processes read, and past ones, may tell captions of an image that its own row does not.
    """
    told = positives(caption_keys, text_keys)
    first = (image_keys.unsqueeze(1) == image_keys.unsqueeze(0)).int().argmax(1)  # [V]
    counted = torch.zeros_like(told, dtype=torch.int64).index_add_(0, first, told.long())
    return counted[first] > 0


def belonging_anywhere(batch: Batch) -> Tensor:
    """Return bool [V, T], of all processes: which texts are captions of which images, as far as any process knows."""
    return belonging(gather(batch.caption_keys), gather(batch.image_keys), gather(batch.text_keys))


def false_texts(batch: Batch) -> Tensor:
    """Return bool [P, T of all processes]: which texts may stand in a pair as false ones, each distinct text once."""
    images = batch.pairs[:, 0]
    own = offset(len(batch.caption_keys), images.device) + images
    return first_of_equal(gather(batch.text_keys)) & ~belonging_anywhere(batch)[own]


def told_together(caption_keys: Tensor, image_keys: Tensor) -> Tensor:
    """Return the keys int64 [V, .] of the captions that all rows of the same image tell, 0 where there are fewer.

    caption_keys int64 [V, C] as for `positives`; rows with the same key int64 [V] are of the same image.
    """
    same = image_keys.unsqueeze(1) == image_keys.unsqueeze(0)
    first, place = same.int().argmax(1), same.tril(-1).sum(1)  # [V]: the first row of the image, and which this one is
    told = caption_keys.new_zeros(len(image_keys), int(place.max()) + 1, caption_keys.shape[1])
    told[first, place] = caption_keys
    return told[first].flatten(1)


def other_images(belongs: Tensor, keys: Tensor) -> Tensor:
    """Draw for each text an image that does not belong to it, all being equally likely.

    belongs bool [V, P]: image v belongs to the text of pair p; keys int64 [P] decide the draw.
    Returns int64 [P], -1 where every image belongs.
    """
    return drawn(~belongs.T, keys, "other image")


def drawn(allowed: Tensor, keys: Tensor, stream: str) -> Tensor:
    """Draw one of the allowed candidates of each row, all being equally likely; -1 where there is none.

    allowed bool [P, K]; keys int64 [P] decide the draw, together with the name of its stream. Returns int64 [P].
    """
    count = allowed.sum(1)
    nth = (uniform(keys, stream, 1).squeeze(1) * count).long()  # [P]
    position = allowed.cumsum(1) - 1
    chosen = (allowed & (position == nth.unsqueeze(1))).int().argmax(1)
    return torch.where(count > 0, chosen, -1)


def drawn_by_softmax(scores: Tensor, allowed: Tensor, keys: Tensor, stream: str) -> Tensor:
    """Draw one of the allowed candidates of each row by the softmax of their scores; -1 where there is none.

    scores float [P, K], allowed bool [P, K]; keys int64 [P] decide the draw. Returns int64 [P].
    """
    lowest = torch.finfo(torch.float64).min  # not minus infinity: a row of these alone would become NaN
    weights = scores.double().masked_fill(~allowed, lowest).softmax(1) * allowed
    summed = weights.cumsum(1)
    whole = summed[:, -1:]
    # a draw just below 1 must not be rounded up to the whole, beyond the last candidate
    reached = torch.minimum(uniform(keys, stream, 1) * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    chosen = (summed <= reached).sum(1).clamp(max=scores.shape[1] - 1)
    return torch.where(allowed.any(1), chosen, -1)


def hardest(scores: Tensor, allowed: Tensor) -> Tensor:
    """Return the allowed candidate of each row with the highest score, int64 [P]; -1 where there is none."""
    chosen = scores.masked_fill(~allowed, float("-inf")).argmax(1)
    return torch.where(allowed.any(1), chosen, -1)


def first_of_equal(keys: Tensor) -> Tensor:
    """Return bool [B]: no earlier row has the same key int64 [B]."""
    same = keys.unsqueeze(0) == keys.unsqueeze(1)
    return ~same.tril(-1).any(1)


def stacked(first: Tensor, second: Tensor) -> Tensor:
    """Concatenate rows [.., C] and [.., C'] whose widths may differ; what is missing is filled with zeros.

    Tensors of one dimension are concatenated as they are.
    """
    if first.dim() == 1:
        return torch.cat([first, second])
    widest = max(first.shape[1], second.shape[1])
    return torch.cat([functional.pad(part, (0, widest - part.shape[1])) for part in (first, second)])
