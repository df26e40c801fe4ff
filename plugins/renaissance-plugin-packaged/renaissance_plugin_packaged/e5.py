"""multilingual-e5-small as a text backbone: 4-bit weights from one package, the tokenizer from another.

The file of weights: "E5S1", its version and sizes, a tokenizer of its own, then the names of the tensors with the
places where they begin. A tensor is fp32, or rows of blocks of 32 weights: an fp16 scale and 32 integers of 4 bits, of
which a byte holds one of the first half and one of the second; the weight is (integer - 8) x scale.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from tokenizers import normalizers
from torch import Tensor
from transformers import BertModel

from renaissance.api import SavedBackbone, Weights
from renaissance.toolkit.text import WordTokenizer, infer_facts, read_tokenizer
from renaissance_plugin_packaged.bert import BLOCKS, Bert, create, filled, rebuilt
from renaissance_plugin_packaged.entries import E5_VOCABULARY, E5Options
from renaissance_plugin_packaged.files import E5_TOKENIZER, E5_WEIGHTS

SIZES = 44  # bytes of magic, version, seven sizes, epsilon and block length
BLOCK = np.dtype([("scale", "<f2"), ("weights", "u1", 16)])
WIDTH = 384
BLOCKS_OF_4_BITS = 1  # as the kind of a tensor; 0 is fp32
EMBEDDINGS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}
PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def build(options: E5Options, *, weights: Weights, saved: SavedBackbone | None = None) -> Bert:
    """Return multilingual-e5-small as a backbone.

    Raises:
        MissingPackageError: the package with the weights, or that with the tokenizer, is not installed.
        ModelFileError: one of the files is damaged, or a saved model is not one of this backbone.
    """
    if weights == "none":
        assert saved is not None, "weights='none' builds from a saved config"
        return rebuilt(saved, vocabulary=E5_VOCABULARY, name="packaged:multilingual-e5-small")
    config = {"layers": options.layers, "dropout": options.dropout}
    processor = text_processor(options)
    model = _pretrained(config) if weights == "pretrained" else create(config, vocabulary=E5_VOCABULARY)
    return Bert(model, processor, config)


def text_processor(options: E5Options) -> WordTokenizer:
    """Return the tokenizer, which puts the prefix before each text.

    Raises:
        MissingPackageError: the package that holds it is not installed.
        ModelFileError: its file is damaged.
    """
    tokenizer = read_tokenizer(E5_TOKENIZER.locate())
    if options.prefix:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(options.prefix), tokenizer.normalizer])
    return WordTokenizer(tokenizer, infer_facts(tokenizer, max_tokens=options.max_tokens))


def _pretrained(config: Mapping[str, Any]) -> BertModel:
    tensors = dict(_tensors(np.memmap(E5_WEIGHTS.locate(), dtype=np.uint8, mode="r"), config["layers"]))
    return filled(config, tensors, vocabulary=E5_VOCABULARY)


def _tensors(data: np.ndarray, layers: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of the first blocks by the names that BERT has for them; rows that no token uses are left."""
    for name, kind, count, start in _directory(data):
        known = _name(name, layers)
        if known is None:
            continue
        values = _blocks(data, start, count) if kind == BLOCKS_OF_4_BITS else _floats(data, start, count)
        if name.startswith("emb.") and not name.startswith("emb.ln"):
            values = values.reshape(-1, WIDTH)[:E5_VOCABULARY]
        elif kind == BLOCKS_OF_4_BITS:
            values = values.reshape(-1, 4 * WIDTH if ".fo." in name else WIDTH)
        yield known, torch.from_numpy(np.ascontiguousarray(values))


def _directory(data: np.ndarray) -> Iterator[tuple[str, int, int, int]]:
    """Yield name, kind, number of values and first byte of each tensor."""
    view = data.data
    (pieces,) = struct.unpack_from("<i", view, SIZES)
    (text,) = struct.unpack_from("<Q", view, SIZES + 20)
    place = SIZES + 28 + 4 * (pieces + 1) + 4 * pieces + text  # behind the pieces, their scores and their text
    _, normalisation = struct.unpack_from("<iI", view, place)
    place += 8 + normalisation
    (tensors,) = struct.unpack_from("<i", view, place)
    place += 4
    for _ in range(tensors):
        (length,) = struct.unpack_from("<H", view, place)
        name = bytes(view[place + 2 : place + 2 + length]).decode("ascii")
        kind, count, start, _ = struct.unpack_from("<BIQQ", view, place + 2 + length)
        yield name, kind, count, start
        place += 2 + length + 21


def _name(name: str, layers: int) -> str | None:
    """Return what BERT calls a tensor; None where its block is cut away."""
    if name in EMBEDDINGS:
        return f"embeddings.{EMBEDDINGS[name]}"
    block, part, kind = name.split(".")
    index = int(block.removeprefix("l"))
    return f"{BLOCKS}.{index}.{PARTS[part]}.{'weight' if kind == 'w' else 'bias'}" if index < layers else None


def _floats(data: np.ndarray, start: int, count: int) -> np.ndarray:
    return data[start : start + 4 * count].view("<f4").astype(np.float32)


def _blocks(data: np.ndarray, start: int, count: int) -> np.ndarray:
    """Return the weights [count] of blocks of 32."""
    blocks = data[start : start + count // 32 * BLOCK.itemsize].view(BLOCK)
    integers = np.concatenate([blocks["weights"] & 15, blocks["weights"] >> 4], axis=1)  # [blocks, 32]
    return ((integers.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]).reshape(count)
