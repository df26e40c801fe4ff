"""all-MiniLM-L6-v2 as a text backbone: a BERT of transformers, weights and tokenizer from a package.

Letters in shapes: T texts, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import BertConfig, BertModel

from renaissance.api import Features, SavedBackbone, TextInput, Weights
from renaissance.errors import ModelFileError, SpecError
from renaissance.toolkit.building import build_empty
from renaissance.toolkit.layered import LayerState, fold, modules_at, record, run_block, take_blocks
from renaissance.toolkit.pooling import masked_mean
from renaissance.toolkit.text import WordTokenizer, infer_facts, read_tokenizer
from renaissance_plugin_packaged.entries import MINILM_LAYERS, MINILM_POSITIONS, MiniLMOptions
from renaissance_plugin_packaged.files import MINILM_TOKENIZER, MINILM_WEIGHTS

BLOCKS = "encoder.layer"
# in the file, and no part of the backbone: a buffer of old versions of transformers, and a head that nothing uses
LEFT_OUT = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")


class MiniLM(nn.Module):
    """The embeddings and the blocks of MiniLM; the mean of the real tokens is the pooled vector."""

    class_token = False
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
        length, longest = inputs.mask.shape[1], self.processor.facts.max_tokens
        if length > longest:
            raise SpecError(
                f"The texts have {length} tokens, but max_tokens is {longest}. Truncate them, or raise max_tokens."
            )
        words = {"input_ids": inputs.token_ids} if inputs.embeddings is None else {"inputs_embeds": inputs.embeddings}
        arguments = {**words, "attention_mask": inputs.mask.to(torch.int64)}
        if inputs.segment_ids is not None:
            arguments["token_type_ids"] = inputs.segment_ids
        hidden, calls = record(self.model, arguments)
        return LayerState(hidden, inputs.mask, calls)

    def step(self, index: int, state: LayerState) -> LayerState:
        """Run one block."""
        return run_block(self.blocks[index], index, state)

    def finish(self, state: LayerState) -> Features:
        """Return the tokens [T, L, D] and their mean [T, D]."""
        return Features(state.hidden, state.mask, masked_mean(state.hidden, state.mask))

    def save(self, folder: Path) -> Mapping[str, Any]:
        """Write the tokenizer; return the config from which `build` builds the backbone again."""
        self.processor.save(folder)
        return self.config


def build(options: MiniLMOptions, *, weights: Weights, saved: SavedBackbone | None = None) -> MiniLM:
    """Return MiniLM as a backbone.

    Raises:
        MissingPackageError: the package with the weights and the tokenizer is not installed.
        ModelFileError: one of its files is damaged, or a saved model is not one of this backbone.
    """
    if weights == "none":
        assert saved is not None, "weights='none' builds from a saved config"
        return _rebuilt(saved)
    config = {"layers": options.layers, "dropout": options.dropout}
    tokenizer = read_tokenizer(MINILM_TOKENIZER.locate())
    processor = WordTokenizer(tokenizer, infer_facts(tokenizer, max_tokens=options.max_tokens))
    model = _pretrained(config) if weights == "pretrained" else _create(config)
    return MiniLM(model, processor, config)


def _create(config: Mapping[str, Any]) -> BertModel:
    return BertModel(
        BertConfig(
            vocab_size=30522,
            hidden_size=384,
            num_hidden_layers=config["layers"],
            num_attention_heads=12,
            intermediate_size=1536,
            max_position_embeddings=MINILM_POSITIONS,
            hidden_dropout_prob=config["dropout"],
            attention_probs_dropout_prob=config["dropout"],
        ),
        add_pooling_layer=False,
    )


def _rebuilt(saved: SavedBackbone) -> MiniLM:
    if set(saved.config) != {"layers", "dropout"}:
        raise ModelFileError(
            f"The saved config {dict(saved.config)!r} is not one of packaged:minilm. Save or download the model again."
        )
    return MiniLM(build_empty(lambda: _create(saved.config)), WordTokenizer.load(saved.folder), saved.config)


def _pretrained(config: Mapping[str, Any]) -> BertModel:
    """Return the model with the package's weights: all of the file but `LEFT_OUT` and the blocks that are cut away."""
    tensors = load_file(MINILM_WEIGHTS.locate())
    cut = tuple(f"{BLOCKS}.{index}." for index in range(config["layers"], MINILM_LAYERS))
    kept = {name: value for name, value in tensors.items() if name not in LEFT_OUT and not name.startswith(cut)}
    model = build_empty(lambda: _create(config))
    model.load_state_dict(kept, strict=True, assign=True)
    return model
