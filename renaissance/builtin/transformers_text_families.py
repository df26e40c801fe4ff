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
    pair: its blocks return (hidden state, attention).
    start: "recorded": the library's forward begins; "causal": tokens attend only to those before them; "padded": texts
    are padded to the longest that the model takes, and it sees the padding. pooling: what stands for the whole text.
    """

    blocks: str = "encoder.layer"
    body: str = "encoder"
    embeddings: tuple[str, ...] = ("embeddings",)
    final: tuple[str, ...] = ()
    pair: bool = False
    start: Literal["recorded", "causal", "padded"] = "recorded"
    pooling: Pooling = "first"


FAMILIES: Mapping[str, Family] = {
    "bert": Family(),
    "roberta": Family(),
    "xlm-roberta": Family(),
    "camembert": Family(),
    "electra": Family(embeddings=("embeddings", "embeddings_project")),
    "bert-generation": Family(),
    "data2vec-text": Family(),
    "ernie": Family(),
    "roc_bert": Family(),
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
