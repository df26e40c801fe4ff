"""Where the text encoders of `transformers` keep their parts, by model type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from renaissance.builtin.transformers_options import Pooling


@dataclass(frozen=True, slots=True)
class Family:
    """Where a model type keeps its parts.

    body: the module that runs the blocks, given (hidden_states, attention_mask); empty where the model itself does.
    pair: its blocks return (hidden state, attention). halves: its blocks are BERT's: post-norm attention, then an MLP.
    start: "recorded": the library's forward begins; "causal": tokens attend only to those before them; "padded": texts
    are padded to the longest that the model takes, and it sees the padding. pooling: what stands for the whole text.
    """

    blocks: str = "encoder.layer"
    body: str = "encoder"
    embeddings: tuple[str, ...] = ("embeddings",)
    final: tuple[str, ...] = ()
    pair: bool = False
    halves: bool = False
    start: Literal["recorded", "causal", "padded"] = "recorded"
    pooling: Pooling = "first"


FAMILIES: Mapping[str, Family] = {
    "bert": Family(halves=True),
    "roberta": Family(halves=True),
    "xlm-roberta": Family(halves=True),
    "camembert": Family(halves=True),
    "electra": Family(embeddings=("embeddings", "embeddings_project"), halves=True),
    "bert-generation": Family(halves=True),
    "data2vec-text": Family(halves=True),
    "ernie": Family(halves=True),
    "roc_bert": Family(halves=True),
    "roberta-prelayernorm": Family(final=("LayerNorm",)),
    "deberta-v2": Family(embeddings=("embeddings", "encoder.rel_embeddings", "encoder.LayerNorm"), pair=True),
    "modernbert": Family(blocks="layers", body="", final=("final_norm",)),
    "distilbert": Family(blocks="transformer.layer", body="transformer"),
    "mpnet": Family(embeddings=("embeddings", "encoder.relative_attention_bias"), pair=True, pooling="mean"),
    "clip_text_model": Family(blocks="encoder.layers", final=("final_layer_norm",), start="causal", pooling="last"),
    "metaclip_2_text_model": Family(
        blocks="encoder.layers", final=("final_layer_norm",), start="causal", pooling="last"
    ),
    "siglip2_text_model": Family(
        blocks="encoder.layers", final=("final_layer_norm", "head"), start="padded", pooling="last"
    ),
    "siglip_text_model": Family(
        blocks="encoder.layers", final=("final_layer_norm", "head"), start="padded", pooling="last"
    ),
}
