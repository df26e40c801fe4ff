"""A BERT of transformers as a text backbone, whose weights and tokenizer come from packages.

Letters in shapes: T texts, L tokens, M tokens of another modality, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel
from transformers.masking_utils import create_bidirectional_mask

from renaissance.api import Features, Positions, SavedBackbone, TextInput
from renaissance.errors import ModelFileError, SpecError
from renaissance.toolkit.building import build_empty
from renaissance.toolkit.layered import LayerState, fold, modules_at, record, run_block, take_blocks
from renaissance.toolkit.pooling import masked_mean
from renaissance.toolkit.text import WordTokenizer

BLOCKS = "encoder.layer"
POSITIONS = 512


class Bert(nn.Module):
    """The embeddings and the blocks of a BERT; the mean of the real tokens is the pooled vector."""

    class_token = False
    positions: Positions = "absolute"
    revision: str | None = None

    def __init__(self, model: BertModel, processor: WordTokenizer, config: Mapping[str, Any]) -> None:
        """Take the blocks out of the model, so that they run one by one."""
        super().__init__()
        self.blocks = take_blocks(model, BLOCKS)
        self.model = model
        self.embeddings = modules_at(model, ("embeddings",))
        self.final: Sequence[nn.Module] = ()
        self.width: int = model.config.hidden_size
        self.processor = processor
        self.config = dict(config)

    def forward(self, inputs: TextInput, layers: Sequence[int] = ()) -> Features:
        """Encode token ids [T, L] (or word embeddings [T, L, D]) with their mask [T, L]; return tokens [T, L, D].

        Raises:
            SpecError: a text is longer than `max_tokens`, or there is no such layer.
        """
        return fold(self, inputs, layers)

    def embed(self, inputs: TextInput) -> LayerState:
        """Return the state before the first block.

        Raises:
            SpecError: a text is longer than `max_tokens`.
        """
        arguments = {**self._words(inputs), "attention_mask": inputs.mask.to(torch.int64)}
        hidden, calls = record(self.model, arguments)
        return LayerState(hidden, inputs.mask, calls)

    def embedded(self, inputs: TextInput) -> Features:
        """Return the tokens [T, L, D] before the first block, with their mask.

        Raises:
            SpecError: a text is longer than `max_tokens`.
        """
        return Features(cast(Tensor, self.model.embeddings(**self._words(inputs))), inputs.mask)

    def join(self, own: Features | None, other: Features | None) -> LayerState:
        """Return the state before the first block of own tokens [T, L, D] followed by others [T, M, D].

        Raises:
            SpecError: there is neither.
        """
        streams = [stream for stream in (own, other) if stream is not None]
        if not streams:
            raise SpecError("Neither texts nor other tokens were given to encode. Give one of them, or both.")
        hidden = torch.cat([stream.tokens for stream in streams], dim=1)  # [T, L + M, D]
        mask = torch.cat([stream.mask for stream in streams], dim=1)
        form = create_bidirectional_mask(
            config=self.model.config, inputs_embeds=hidden, attention_mask=mask.to(torch.int64)
        )
        calls = record(self.model.encoder, {"hidden_states": hidden, "attention_mask": form})[1]
        return LayerState(hidden, mask, calls)

    def _words(self, inputs: TextInput) -> dict[str, Tensor]:
        """Return what the library calls the texts; a text that is too long raises SpecError."""
        length, longest = inputs.mask.shape[1], self.processor.facts.max_tokens
        if length > longest:
            raise SpecError(
                f"The texts have {length} tokens, but max_tokens is {longest}. Truncate them, or raise max_tokens."
            )
        segments = {} if inputs.segment_ids is None else {"token_type_ids": inputs.segment_ids}
        if inputs.embeddings is None:
            return {"input_ids": inputs.token_ids, **segments}
        return {"inputs_embeds": inputs.embeddings, **segments}

    def step(self, index: int, state: LayerState) -> LayerState:
        """Run one block."""
        return run_block(self.blocks[index], index, state)

    def finish(self, state: LayerState) -> Features:
        """Return the tokens [T, L, D] and their mean [T, D]."""
        return Features(state.hidden, state.mask, masked_mean(state.hidden, state.mask))

    def keep_embeddings(self) -> None:
        """Drop the blocks, for good: `embedded` is all that still works."""
        if hasattr(self.model, "encoder"):  # a restored tower is asked a second time
            del self.model.encoder
        self.blocks = cast("Sequence[nn.Module]", nn.ModuleList())
        self.config = {**self.config, "embeddings_only": True}

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the tokenizer; return the config from which `build` builds the backbone again."""
        self.processor.save(folder)
        return self.config


def create(config: Mapping[str, Any], *, vocabulary: int) -> BertModel:
    """Return a BERT of width 384 without a pooler; `config` says its layers and its dropout."""
    return BertModel(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=384,
            num_hidden_layers=config["layers"],
            num_attention_heads=12,
            intermediate_size=1536,
            max_position_embeddings=POSITIONS,
            hidden_dropout_prob=config["dropout"],
            attention_probs_dropout_prob=config["dropout"],
        ),
        add_pooling_layer=False,
    )


def filled(config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, vocabulary: int) -> BertModel:
    """Return a BERT with these weights, which must be all of its own."""
    model = build_empty(lambda: create(config, vocabulary=vocabulary))
    model.load_state_dict(dict(tensors), strict=True, assign=True)
    return model


def rebuilt(saved: SavedBackbone, *, vocabulary: int, name: str) -> Bert:
    """Return the backbone of a saved model, without weights.

    Raises:
        ModelFileError: the saved model is not one of the backbone called `name`.
    """
    if set(saved.config) - {"embeddings_only"} != {"layers", "dropout"}:
        raise ModelFileError(
            f"The saved config {dict(saved.config)!r} is not one of {name}. Save or download the model again."
        )
    model = build_empty(lambda: create(saved.config, vocabulary=vocabulary))
    tower = Bert(model, WordTokenizer.load(saved.folder), saved.config)
    if saved.config.get("embeddings_only", False):
        tower.keep_embeddings()
    return tower
