"""Masked language modelling (arXiv 1810.04805, as PROTOCOLS: 15% of tokens, 80/10/10). Letters: P pairs, L tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renaissance.api import Batch, Encoded, Joint, ModelFacts, Pairs, TaskLoss, TextInput, TokenizerFacts, Views
from renaissance.builtin.task_entries import MlmOptions
from renaissance.errors import SpecError
from renaissance.toolkit.attention import initialise
from renaissance.toolkit.losses import imitation, wide
from renaissance.toolkit.random import uniform
from renaissance.toolkit.teaching import Taught, needed_momentum, taught, teacher_share

IGNORED = -100


class MaskedLanguageModelling(nn.Module):
    """Predict the masked tokens of each pair's caption; the head runs at masked positions only.

    With `distillation` a momentum teacher sees the same masked text, and its predictions are a share of the targets.
    """

    def __init__(self, options: MlmOptions, *, model: ModelFacts) -> None:
        super().__init__()
        if model.tokenizer is None or model.tokenizer.mask_id is None:
            raise SpecError(
                "The task 'mlm' needs a tokenizer with a mask token, and this text tower has none; leave 'mlm' out."
            )
        assert model.fused_text is not None
        self.options, self.tokenizer = options, model.tokenizer
        self.needs_teacher = needed_momentum(options)
        self.pieces: Tensor | None
        self.register_buffer("pieces", _pieces(model.tokenizer) if options.whole_word else None, persistent=False)
        width = model.fused_text
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=options.norm_eps))
        self.decoder = nn.Linear(width, model.tokenizer.vocabulary)
        initialise(self)

    def views(self, batch: Batch) -> Views:
        """Return the masked text of each pair [P, L]."""
        masked, _ = self._masked(batch)
        return Views(texts=masked)

    def pairs(self, encoded: Encoded, batch: Batch, published: Mapping[str, Any]) -> Pairs:
        """Pair each masked text with its own image."""
        _, masked_text = encoded.view("mlm")
        assert masked_text is not None
        _, labels = self._masked(batch)
        index = torch.stack([batch.pairs[:, 0], torch.arange(len(batch.pairs), device=batch.pairs.device)], dim=1)
        return Pairs(encoded.vision, masked_text, index, frozenset({"text"}), batch.slots, labels)

    def loss(self, encoded: Encoded, joint: Joint | None, pairs: Pairs | None, batch: Batch) -> TaskLoss:
        """Return the cross-entropy over the masked positions; none of them: 0 with count 0."""
        assert joint is not None
        assert joint.text is not None
        assert pairs is not None
        assert pairs.targets is not None
        at = pairs.targets != IGNORED  # [P, L]
        logits = self.predict(joint.text.tokens, at)  # [masked positions, vocabulary]
        labels = pairs.targets[at]
        count = at.sum()
        right = (logits.argmax(-1) == labels).sum()
        loss = F.cross_entropy(wide(logits), labels, reduction="sum")
        if self.needs_teacher is not None:
            loss = self._distilled(loss, logits, at, taught(encoded, "mlm"))
        return TaskLoss(loss, count, metrics={"accuracy": (right, count)})

    def predict(self, tokens: Tensor, at: Tensor) -> Tensor:
        """Return logits [masked positions, vocabulary] of fused text tokens [P, L, D], masked bool [P, L]."""
        return self.decoder(self.head(tokens[at]))  # type: ignore[no-any-return]  # nn.Module.__call__

    def _distilled(self, loss: Tensor, logits: Tensor, at: Tensor, lesson: Taught) -> Tensor:
        """Return the loss with the share of the teacher's targets."""
        assert lesson.joint is not None
        assert lesson.joint.text is not None
        tokens = lesson.joint.text.tokens
        # a tower that holds still gives no padding beyond the longest text, where nothing is masked
        teacher: Tensor = lesson.task.predict(tokens, at[:, : tokens.shape[1]])
        share = teacher_share(self.options, lesson.updates)
        return (1 - share) * loss + share * imitation(wide(logits), wide(teacher)).sum()

    def _masked(self, batch: Batch) -> tuple[TextInput, Tensor]:
        texts = batch.texts
        row = batch.pairs[:, 1]
        ids, mask = texts.token_ids[row], texts.mask[row]
        words = texts.words[row] if self.options.whole_word and texts.words is not None else None
        masked, labels = mask_tokens(ids, mask, batch.seeds, self.tokenizer, self.options, self.pieces, words)
        segments = None if texts.segment_ids is None else texts.segment_ids[row]
        return TextInput(masked, mask, segments), labels


def mask_tokens(
    ids: Tensor,
    mask: Tensor,
    seeds: Tensor,
    tokenizer: TokenizerFacts,
    options: MlmOptions,
    pieces: Tensor | None = None,
    words: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (ids with masked tokens, labels), both int64 [P, L]; labels are -100 where nothing is predicted.

    Of the chosen tokens 80% become the mask token, 10% a random token, 10% stay. Special and padding tokens are never
    chosen. With `pieces` bool [2, vocabulary] (tokens that continue a word, tokens that leave it unfinished), or with
    `words` int64 [P, L] (the number of each token's word), the tokens of a word are chosen together. What is drawn for
    a pair depends on its seed alone.
    """
    assert tokenizer.mask_id is not None
    length = ids.shape[1]
    special = torch.isin(ids, torch.tensor(tokenizer.special_ids, device=ids.device))
    eligible = mask & ~special
    first = _first_tokens(ids, eligible, pieces, words)
    chance = uniform(seeds, "mlm position", length).gather(1, first)  # one draw for a word
    chosen = eligible & (chance < options.probability)
    if options.at_least_one:
        lowest = chance.masked_fill(~eligible, 2.0).argmin(1, keepdim=True)
        likeliest = eligible & (first == first.gather(1, lowest))
        chosen = chosen | (likeliest & ~chosen.any(1, keepdim=True))
    kind = uniform(seeds, "mlm kind", length)
    drawn = (uniform(seeds, "mlm token", length) * tokenizer.vocabulary).long()
    masked = torch.where(chosen & (kind < 0.8), tokenizer.mask_id, ids)
    masked = torch.where(chosen & (kind >= 0.8) & (kind < 0.9), drawn, masked)
    return masked, torch.where(chosen, ids, IGNORED)


def _pieces(tokenizer: TokenizerFacts) -> Tensor:
    """Return bool [2, vocabulary]: which tokens continue the word of the token before, and which that of the next.

    Raises:
        SpecError: the tokenizer does not say.
    """
    if tokenizer.pieces is None:
        raise SpecError(
            "'mlm': whole_word needs to know which tokens are pieces of one word, and the tokenizer of this text tower "
            "does not say; leave whole_word out."
        )
    table = torch.zeros(2, tokenizer.vocabulary, dtype=torch.bool)
    table[0, list(tokenizer.pieces.continues)] = True
    table[1, list(tokenizer.pieces.unfinished)] = True
    return table


def _first_tokens(ids: Tensor, eligible: Tensor, pieces: Tensor | None, words: Tensor | None) -> Tensor:
    """Return for each token where its word starts, int64 [P, L]; with neither of both each token is a word."""
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    if words is not None:
        same = words[:, 1:] == words[:, :-1]
    elif pieces is not None:
        same = pieces[0][ids[:, 1:]] | pieces[1][ids[:, :-1]]
    else:
        return places
    joined = torch.zeros_like(eligible)
    joined[:, 1:] = same & eligible[:, 1:] & eligible[:, :-1]
    return places.masked_fill(joined, 0).cummax(1).values
