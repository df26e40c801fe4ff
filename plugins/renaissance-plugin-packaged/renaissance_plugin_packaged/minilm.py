"""all-MiniLM-L6-v2 as a text backbone: weights and tokenizer from a package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safetensors.torch import load_file
from transformers import BertModel

from renaissance.api import SavedBackbone, Weights
from renaissance.toolkit.text import WordTokenizer, infer_facts, read_tokenizer
from renaissance_plugin_packaged.bert import BLOCKS, Bert, create, filled, rebuilt
from renaissance_plugin_packaged.entries import MINILM_LAYERS, MINILM_VOCABULARY, MiniLMOptions
from renaissance_plugin_packaged.files import MINILM_TOKENIZER, MINILM_WEIGHTS

# in the file, and no part of the backbone: a buffer of old versions of transformers, and a head that nothing uses
LEFT_OUT = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")


def build(options: MiniLMOptions, *, weights: Weights, saved: SavedBackbone | None = None) -> Bert:
    """Return MiniLM as a backbone.

    Raises:
        MissingPackageError: the package with the weights and the tokenizer is not installed.
        ModelFileError: one of its files is damaged, or a saved model is not one of this backbone.
    """
    if weights == "none":
        assert saved is not None, "weights='none' builds from a saved config"
        return rebuilt(saved, vocabulary=MINILM_VOCABULARY, name="packaged:minilm")
    config = {"layers": options.layers, "dropout": options.dropout}
    tokenizer = read_tokenizer(MINILM_TOKENIZER.locate())
    processor = WordTokenizer(tokenizer, infer_facts(tokenizer, max_tokens=options.max_tokens))
    model = _pretrained(config) if weights == "pretrained" else create(config, vocabulary=MINILM_VOCABULARY)
    return Bert(model, processor, config)


def _pretrained(config: Mapping[str, Any]) -> BertModel:
    """Return the model with the package's weights: all of the file but `LEFT_OUT` and the blocks that are cut away."""
    tensors = load_file(MINILM_WEIGHTS.locate())
    cut = tuple(f"{BLOCKS}.{index}." for index in range(config["layers"], MINILM_LAYERS))
    kept = {name: value for name, value in tensors.items() if name not in LEFT_OUT and not name.startswith(cut)}
    return filled(config, kept, vocabulary=MINILM_VOCABULARY)
