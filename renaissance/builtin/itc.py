"""Image-text contrast with a learned temperature: symmetric InfoNCE, or the sigmoid loss of SigLIP.

Letters: V images, T texts, W shared width, K candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.api import Batch, Encoded, Joint, Modality, ModelFacts, Pairs, TaskLoss, Views
from renaissance.builtin.task_entries import ItcOptions
from renaissance.toolkit.distributed import gather, offset, world_size
from renaissance.toolkit.dropout import Dropout
from renaissance.toolkit.losses import imitation, multi_positive_nce, sigmoid_pairs, wide
from renaissance.toolkit.pairing import belonging, first_of_equal, stacked, told_together
from renaissance.toolkit.teaching import Taught, needed_momentum, taught, teacher_share

# CLIP's bound on the learned scale (arXiv 2103.00020). SigLIP has none, and its published scales pass this one.
MAX_SCALE = 100.0
# First values: 0.07 as in CLIP; scale 10 and bias -10 as in SigLIP (arXiv 2303.15343, section 3.2), so that training
# starts near the share of true pairs.
TEMPERATURE = {"softmax": 0.07, "sigmoid": 0.1}
BIAS = -10.0


class ImageTextContrast(nn.Module):
    """Draw the vectors of an image and of its captions together; all captions of one image are positives.

    With a `queue` images and texts are compared with what a momentum teacher made of those of all processes and of
    past batches (arXiv 1911.05722); with `distillation` the teacher's similarities are a share of the targets.
    Where the model has a shared space (`dual`), its own projections are used; else the task brings a pair of them.
    """

    def __init__(self, options: ItcOptions, *, model: ModelFacts) -> None:
        super().__init__()
        assert model.vision is not None
        assert model.text is not None
        self.options, self.needs_queue = options, options.queue
        self.needs_teacher = options.momentum if options.queue else needed_momentum(options)
        own = not model.shared_space
        self.vision_projection = Projection(options.vision_projection, model.vision, options) if own else nn.Identity()
        self.text_projection = Projection(options.text_projection, model.text, options) if own else nn.Identity()
        temperature = TEMPERATURE[options.loss] if options.temperature is None else options.temperature
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.bias = nn.Parameter(torch.tensor(BIAS)) if options.loss == "sigmoid" else None

    def views(self, batch: Batch) -> Views:
        """Contrast reads plain inputs only."""
        return Views()

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> None:
        """Contrast fuses nothing."""

    def embed(self, vectors: Tensor, modality: Modality) -> Tensor:
        """Return unit vectors fp32 [B, W] of what `represent` gave for one modality [B, D]."""
        projection = self.vision_projection if modality == "vision" else self.text_projection
        return F.normalize(wide(projection(vectors)), dim=-1)

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        """Return the loss of this process's images and texts against those of all processes.

        Publishes, without gradient, "similarity": this process's images against all texts [V, T of all], multiplied
        by "scale" and without the bias that all pairs share; and "enqueue": what the queue keeps of all processes.
        """
        images = self.embed(encoded.represent(encoded.vision, "vision"), "vision")
        texts = self.embed(encoded.represent(encoded.text, "text"), "text")
        scale = self.scale
        with torch.autocast(images.device.type, enabled=False):  # bf16 logits are off by up to 0.06
            image_rows = scale * images @ gather(texts).T  # [V, T of all]
            published: dict[str, Any] = {"similarity": image_rows.detach(), "scale": scale.detach()}
            if self.bias is not None:
                total, count = _sigmoid(image_rows + self.bias, batch)
            elif self.needs_teacher is None:
                total, count = _softmax(image_rows, scale * texts @ gather(images).T, batch)
            else:
                total, count, enqueued = self._with_teacher(images, texts, taught(encoded, "itc"), batch)
                published["enqueue"] = enqueued
        one = torch.ones((), device=scale.device)
        bias = {} if self.bias is None else {"bias": (self.bias.detach(), one)}
        return TaskLoss(
            total,
            torch.tensor(count, device=total.device),
            published=published,
            metrics={"temperature": (1 / scale.detach(), one), **bias},
        )

    def _with_teacher(
        self, images: Tensor, texts: Tensor, lesson: Taught, batch: Batch
    ) -> tuple[Tensor, int, dict[str, Tensor]]:
        """Return the loss of images [V, W] and texts [T, W] against past and present ones, summed; rows; and those."""
        taught_images, taught_texts = (_unit(lesson, modality) for modality in ("vision", "text"))  # [V, W], [T, W]
        new = {
            "images": gather(taught_images),
            "caption_keys": _captions_of_all(batch),
            "image_keys": gather(batch.image_keys),
            "texts": gather(taught_texts),
            "text_keys": gather(batch.text_keys),
        }
        everything = {name: stacked(rows, lesson.past[name]) if lesson.past else rows for name, rows in new.items()}
        if self.needs_queue:
            key_images, key_texts = everything["images"], everything["texts"]
        else:
            key_images, key_texts = gather(images), gather(texts)
        known = Known(batch, everything["caption_keys"], everything["image_keys"], everything["text_keys"])
        share, scale = teacher_share(self.options, lesson.updates), self.scale
        by_image = _taught_rows(
            scale * images @ key_texts.T,
            scale.detach() * taught_images @ everything["texts"].T,
            known.by_image,
            known.texts,
            share,
        )[known.own_images]
        by_text = _taught_rows(
            scale * texts @ key_images.T,
            scale.detach() * taught_texts @ everything["images"].T,
            known.by_text,
            known.images,
            share,
        )[known.own_texts]
        kept = {"images": known.images, "caption_keys": known.images, "image_keys": known.images}
        enqueued = {name: rows[kept.get(name, known.texts)[: len(rows)]] for name, rows in new.items()}
        return by_image.sum() + by_text.sum(), len(by_image) + len(by_text), enqueued

    @property
    def scale(self) -> Tensor:
        """What similarities are multiplied by."""
        bounded = self.log_scale.clamp(max=math.log(MAX_SCALE)) if self.bias is None else self.log_scale
        return bounded.exp()


def _unit(lesson: Taught, modality: Modality) -> Tensor:
    """Return the teacher's unit vectors [B, W] of one modality."""
    features = lesson.encoded.vision if modality == "vision" else lesson.encoded.text
    vectors: Tensor = lesson.task.embed(lesson.encoded.represent(features, modality), modality)
    return vectors.detach()


def _taught_rows(logits: Tensor, teacher: Tensor, positive: Tensor, candidates: Tensor, share: float) -> Tensor:
    """Return InfoNCE of each row [B, K], with a share of the teacher's targets: [B]."""
    labelled = multi_positive_nce(logits, positive, candidates)
    if not share:
        return labelled
    return (1 - share) * labelled + share * imitation(logits, teacher, candidates)


class Known:
    """What is known of the images and texts of all processes, and of past batches behind them.

    images bool [V of all], texts bool [T of all]: the first of equal ones, which alone are candidates and rows; what is
    the same on two processes is one, and past ones all are. own_images [V], own_texts [T]: these for this process.
    by_image bool [V, T of all], by_text bool [T, V of all]: which belong to the rows of this process.
    """

    def __init__(self, batch: Batch, caption_keys: Tensor, image_keys: Tensor, text_keys: Tensor) -> None:
        views, keys = gather(batch.view_keys), gather(batch.text_keys)
        self.images = F.pad(first_of_equal(views), (0, len(image_keys) - len(views)), value=True)
        self.texts = F.pad(first_of_equal(keys), (0, len(text_keys) - len(keys)), value=True)
        device = keys.device
        first_image, first_text = offset(len(batch.view_keys), device), offset(len(batch.text_keys), device)
        own_images = slice(first_image, first_image + len(batch.view_keys))
        own_texts = slice(first_text, first_text + len(batch.text_keys))
        belongs = belonging(caption_keys, image_keys, text_keys)  # [V of all, T of all]
        self.own_images, self.own_texts = self.images[own_images], self.texts[own_texts]
        self.by_image, self.by_text = belongs[own_images], belongs[:, own_texts].T


def _captions_of_all(batch: Batch) -> Tensor:
    """Return the caption keys int64 [V of all, .] of the images of all processes, as far as any of them knows."""
    if world_size() == 1:  # whose batch has them together
        return batch.caption_keys
    return told_together(gather(batch.caption_keys), gather(batch.image_keys))


def _known(batch: Batch) -> Known:
    return Known(batch, gather(batch.caption_keys), gather(batch.image_keys), gather(batch.text_keys))


def _softmax(image_rows: Tensor, text_rows: Tensor, batch: Batch) -> tuple[Tensor, int]:
    """Return InfoNCE both ways, summed, and the number of rows, from [V, T of all] and [T, V of all]."""
    known = _known(batch)
    by_image = multi_positive_nce(image_rows, known.by_image, known.texts)[known.own_images]
    by_text = multi_positive_nce(text_rows, known.by_text, known.images)[known.own_texts]
    return by_image.sum() + by_text.sum(), len(by_image) + len(by_text)


def _sigmoid(logits: Tensor, batch: Batch) -> tuple[Tensor, int]:
    """Return the sigmoid loss of all pairs [V, T of all], summed, and the number of images."""
    known = _known(batch)
    losses = sigmoid_pairs(logits, known.by_image, known.texts)[known.own_images]
    return losses.sum(), len(losses)


class Projection(nn.Module):
    """From a tower's vector into the shared space: dropout of features, then a linear map, with or without an MLP.

    A linear map that keeps the width starts as the identity, so that the space of the tower is where training starts.
    """

    def __init__(self, kind: Literal["linear", "residual"], width: int, options: ItcOptions) -> None:
        super().__init__()
        self.dropout = Dropout(options.feature_dropout)
        self.linear = nn.Linear(width, options.width)
        if width == options.width:
            nn.init.eye_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
        self.residual = _mlp(width, options) if kind == "residual" else None

    def forward(self, vectors: Tensor) -> Tensor:
        """Map [B, D] to [B, W]."""
        vectors = self.dropout(vectors)
        mapped: Tensor = self.linear(vectors)
        return mapped if self.residual is None else mapped + self.residual(vectors)


def _mlp(width: int, options: ItcOptions) -> nn.Module:
    return nn.Sequential(
        nn.Linear(width, options.hidden),
        nn.GELU(),
        Dropout(options.dropout),
        nn.Linear(options.hidden, options.width),
    )
