"""Image-text matching with false pairs from the batches of all processes. Letters: V images, T texts, P pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.api import Batch, Encoded, Joint, ModelFacts, Pairs, Score, Scorer, TaskLoss, Views
from renaissance.builtin.task_entries import ItmOptions
from renaissance.errors import DataError
from renaissance.toolkit.attention import initialise
from renaissance.toolkit.distributed import gather, gather_features, offset
from renaissance.toolkit.losses import matching, wide
from renaissance.toolkit.metrics import accuracy_score, finite
from renaissance.toolkit.pairing import (
    belonging_anywhere,
    drawn,
    drawn_by_softmax,
    false_texts,
    first_of_equal,
    hardest,
    other_images,
)
from renaissance.toolkit.random import uniform
from renaissance.toolkit.teaching import needed_momentum, taught, teacher_share


class ImageTextMatching(nn.Module):
    """Tell whether a caption belongs to an image.

    In training a share of the pairs gets the image, or the caption, of another pair of the global batch (1:1 by
    default); with `replaced="both"` each pair is there three times: as it is, with another image, and with another
    caption (1:2, as ALBEF has it). A false pair is never an image with a caption of its own, nor with an equal one.
    Pairs for which the batch has nothing false are left out.
    """

    def __init__(self, options: ItmOptions, *, model: ModelFacts) -> None:
        super().__init__()
        assert model.joint is not None
        self.options = options
        self.needs_teacher = needed_momentum(options)
        self.reads = ("itc",) if options.negatives == "hard" or options.max_similarity is not None else ()
        self.head = nn.Linear(model.joint, 1)
        initialise(self)

    def views(self, batch: Batch) -> Views:
        """Matching reads plain text only."""
        return Views()

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> Pairs:
        """Return the true and the false pairs."""
        device, similarity = batch.pairs.device, published["itc"] if self.reads else None
        vision, text = encoded.vision, encoded.text
        image, caption = batch.pairs.unbind(1)
        false: list[tuple[Tensor, Tensor]] = []  # of each replaced side: which pairs [2, P], and which of them exist
        if self.options.replaced != "text":
            vision, image = gather_features(vision), image + offset(len(batch.caption_keys), device)
        if self.options.replaced != "image":
            text, caption = gather_features(text), caption + offset(len(batch.text_keys), device)
        if self.options.replaced != "text":
            other, exists = self._other_images(batch, similarity)
            false.append((torch.stack([other, caption]), exists))
        if self.options.replaced != "image":
            other, exists = self._other_captions(batch, similarity)
            false.append((torch.stack([image, other]), exists))
        true = torch.stack([image, caption])
        if self.options.replaced == "both":
            index = torch.cat([true, *(pairs for pairs, _ in false)], dim=1)  # [2, 3 P]
            usable = torch.cat([torch.ones_like(false[0][1]), *(exists for _, exists in false)])
            matched = torch.arange(len(usable), device=device) < len(image)
        else:
            ((others, exists),) = false
            matched = ~self._false(batch.seeds)
            index, usable = torch.where(matched, true, others), matched | exists
        slots = batch.slots.repeat(len(usable) // len(image))
        return Pairs(vision, text, index.T[usable], frozenset({"pooled"}), slots[usable], matched[usable])

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        """Return the binary cross-entropy of matched or not, or of what the teacher thinks of it, in part."""
        assert joint is not None
        assert pairs is not None
        assert pairs.targets is not None
        logits = self.predict(joint)
        if self.needs_teacher is None:
            loss = matching(logits, pairs.targets)
        else:
            lesson = taught(encoded, "itm")
            share = teacher_share(self.options, lesson.updates)
            loss = matching(logits, pairs.targets, lesson.task.predict(lesson.joint), share)
        right = torch.where(pairs.targets, logits > 0, logits < 0).sum()
        count = torch.tensor(len(logits), device=logits.device)
        return TaskLoss(loss.sum(), count, metrics={"accuracy": (right, count)})

    def predict(self, joint: Joint) -> Tensor:
        """Return the logit of belonging together, fp32 [P]."""
        assert joint.pooled is not None
        return wide(self.head(joint.pooled).squeeze(-1))

    def score(self, scorer: Scorer) -> list[Score]:
        """Measure accuracy over each caption with its image, and with another image of the split."""
        belongs = scorer.positives  # bool [V, T]
        own = belongs.int().argmax(0)  # [T]
        seeds = torch.arange(belongs.shape[1])
        other = other_images(belongs, seeds)
        texts = seeds[other >= 0]
        if not len(texts):
            raise DataError(
                "Matching needs captions that do not belong to every image of the split; this split has none."
            )
        true, false = torch.stack([own[texts], texts], 1), torch.stack([other[texts], texts], 1)
        matched, unmatched = (finite(scorer.match(index), what="itm") for index in (true, false))
        right = torch.stack([matched > 0, unmatched < 0], 1).double()  # [T, 2]
        ties = torch.stack([matched == 0, unmatched == 0], 1).double().mean().item()
        return [accuracy_score("accuracy", right, units=own[texts], chance=50.0, ties=ties)]

    def _other_images(self, batch: Batch, published: Mapping[str, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Return for each pair an image of all processes that its caption is not of, int64 [P]; and if there is one."""
        texts = offset(len(batch.text_keys), batch.pairs.device) + batch.pairs[:, 1]
        distinct = first_of_equal(gather(batch.view_keys))  # an image of two processes is one candidate
        allowed = ~belonging_anywhere(batch)[:, texts].T & distinct  # [P, V of all]
        if published is None:
            return drawn(allowed, batch.seeds, "other image"), allowed.any(1)
        similarity = gather(published["similarity"])[:, texts].T  # [P, V of all]
        return self._chosen(similarity, published["scale"], allowed, batch.seeds, "other image")

    def _other_captions(self, batch: Batch, published: Mapping[str, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Return for each pair a text of all processes that is not of its image, int64 [P]; and if there is one."""
        allowed = false_texts(batch)
        if published is None:
            return drawn(allowed, batch.seeds, "other caption"), allowed.any(1)
        similarity = published["similarity"][batch.pairs[:, 0]]  # [P, T of all]
        return self._chosen(similarity, published["scale"], allowed, batch.seeds, "other caption")

    def _chosen(
        self, similarity: Tensor, scale: Tensor, allowed: Tensor, seeds: Tensor, stream: str
    ) -> tuple[Tensor, Tensor]:
        """Choose one of the allowed candidates of each pair [P, K] by its scaled similarity [P, K]."""
        if self.options.max_similarity is not None:
            allowed = allowed & (similarity <= self.options.max_similarity * scale)
        # what exists is told by the keys, so that shapes are known where similarities have no values (`cost`)
        if self.options.negatives == "random":
            return drawn(allowed, seeds, stream), allowed.any(1)
        if self.options.hardness == "hardest":
            return hardest(similarity, allowed), allowed.any(1)
        return drawn_by_softmax(similarity, allowed, seeds, stream), allowed.any(1)

    def _false(self, seeds: Tensor) -> Tensor:
        """Return bool [P]: the given share of the pairs of the global batch, those with the lowest draws."""
        draws = uniform(seeds, "itm false", 1).squeeze(1)
        everywhere = gather(draws)
        count = round(len(everywhere) * self.options.false_share)
        if count == 0:
            return torch.zeros_like(draws, dtype=torch.bool)
        return draws <= everywhere.sort().values[count - 1]
