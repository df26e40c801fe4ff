"""Image-text matching, 1:1 with other images, over all processes. Letters: V images, P pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.api import Batch, Encoded, Joint, ModelFacts, Pairs, Score, Scorer, TaskLoss, Views
from renaissance.builtin.task_entries import ItmOptions
from renaissance.errors import DataError
from renaissance.toolkit.attention import initialise
from renaissance.toolkit.distributed import gather, gather_features, offset
from renaissance.toolkit.metrics import accuracy_score, finite
from renaissance.toolkit.pairing import other_images, positives
from renaissance.toolkit.random import uniform


class ImageTextMatching(nn.Module):
    """Tell whether a caption belongs to an image.

    In training a share of the pairs gets an image of another pair of the global batch: never an image that the
    caption, or an equal one, belongs to. Pairs for which the batch has no such image are left out.
    """

    def __init__(self, options: ItmOptions, *, model: ModelFacts) -> None:
        super().__init__()
        assert model.joint is not None
        self.options = options
        self.head = nn.Linear(model.joint, 1)
        initialise(self)

    def views(self, batch: Batch) -> Views:
        """Matching reads plain text only."""
        return Views()

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> Pairs:
        """Return the true pairs, a share of them with another image in place of their own."""
        images = gather_features(encoded.vision)
        own = batch.pairs[:, 0] + offset(len(batch.caption_keys), batch.pairs.device)
        belongs = positives(gather(batch.caption_keys), batch.text_keys[batch.pairs[:, 1]])  # [V, P]
        other = other_images(belongs, batch.seeds)
        false = self._false(batch.seeds)
        index = torch.stack([torch.where(false, other, own), batch.pairs[:, 1]], dim=1)
        usable = index[:, 0] >= 0
        return Pairs(images, encoded.text, index[usable], frozenset({"pooled"}), batch.slots[usable], (~false)[usable])

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        """Return the binary cross-entropy of matched or not."""
        assert joint is not None
        assert pairs is not None
        assert pairs.targets is not None
        logits = self.predict(joint)
        loss = F.binary_cross_entropy_with_logits(logits, pairs.targets.float(), reduction="sum")
        right = torch.where(pairs.targets, logits > 0, logits < 0).sum()
        count = torch.tensor(len(logits), device=logits.device)
        return TaskLoss(loss, count, metrics={"accuracy": (right, count)})

    def predict(self, joint: Joint) -> Tensor:
        """Return the logit of belonging together, fp32 [P]."""
        assert joint.pooled is not None
        return self.head(joint.pooled).squeeze(-1).float()  # type: ignore[no-any-return]  # nn.Module.__call__

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

    def _false(self, seeds: Tensor) -> Tensor:
        """Return bool [P]: the given share of the pairs of the global batch, those with the lowest draws."""
        draws = uniform(seeds, "itm false", 1).squeeze(1)
        everywhere = gather(draws)
        count = round(len(everywhere) * self.options.false_share)
        if count == 0:
            return torch.zeros_like(draws, dtype=torch.bool)
        return draws <= everywhere.sort().values[count - 1]
