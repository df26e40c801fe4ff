"""METER's ranking loss of retrieval: the caption of an image among false ones. Letters: V images, T texts, P pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from renaissance.api import Batch, Encoded, Joint, ModelFacts, Pairs, TaskLoss, Views
from renaissance.builtin.task_entries import RankOptions
from renaissance.toolkit.attention import initialise
from renaissance.toolkit.distributed import gather_features, offset
from renaissance.toolkit.losses import wide
from renaissance.toolkit.pairing import false_texts
from renaissance.toolkit.random import uniform


class Ranking(nn.Module):
    """Tell the caption of an image from others of the global batch: a softmax over one logit each (METER, 2111.02387).

    A false text is no caption of the image, nor equal to one. Images for which the batch has none are left out.
    """

    def __init__(self, options: RankOptions, *, model: ModelFacts) -> None:
        super().__init__()
        assert model.joint is not None
        self.options = options
        self.head = nn.Linear(model.joint, 1)
        initialise(self)

    def views(self, batch: Batch) -> Views:
        """Ranking reads plain text only."""
        return Views()

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> Pairs:
        """Return each pair and then its image with false texts; targets bool [P, 1 + K]: which of these there are."""
        image, caption = batch.pairs.unbind(1)
        text = gather_features(encoded.text)
        caption = (caption + offset(len(batch.text_keys), caption.device)).unsqueeze(1)  # [P, 1]
        false, exists = self._false_texts(batch)  # [P, K]
        chosen = torch.cat([caption, torch.where(exists, false, caption)], dim=1)
        there = torch.cat([torch.ones_like(caption, dtype=torch.bool), exists], dim=1)
        repeated = chosen.shape[1]
        index = torch.stack([image.repeat_interleave(repeated), chosen.flatten()], dim=1)
        slots = batch.slots.repeat_interleave(repeated)
        return Pairs(encoded.vision, text, index, frozenset({"pooled"}), slots, there)

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        """Return the cross-entropy of the true text among those that are there."""
        assert joint is not None
        assert pairs is not None
        assert pairs.targets is not None
        there = pairs.targets
        logits = self.predict(joint).view(there.shape).masked_fill(~there, float("-inf"))
        counted = there[:, 1:].any(1)
        loss = -logits.log_softmax(1)[:, 0]
        right = (logits[:, 1:].amax(1) < logits[:, 0]) & counted
        return TaskLoss(
            loss.masked_fill(~counted, 0.0).sum(), counted.sum(), metrics={"accuracy": (right.sum(), counted.sum())}
        )

    def predict(self, joint: Joint) -> Tensor:
        """Return the logit by which texts, or images, are ranked, fp32 [P]."""
        assert joint.pooled is not None
        return wide(self.head(joint.pooled).squeeze(-1))

    def _false_texts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return for each pair texts of all processes that are not of its image, int64 [P, K]; and which there are."""
        allowed = false_texts(batch)
        draws = uniform(batch.seeds, "false texts", allowed.shape[1])
        draws = draws.masked_fill(~allowed, 2.0)  # those not allowed come last
        chosen = draws.argsort(1)[:, : self.options.false_texts]
        return chosen, allowed.gather(1, chosen)
