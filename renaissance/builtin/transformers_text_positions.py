"""How the text encoders of `transformers` whose blocks we know tell their tokens apart. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from renaissance.api import Positions

TEXT_POSITIONS: Mapping[str, Positions] = {
    "bert": "absolute",
    "roberta": "absolute",
    "xlm-roberta": "absolute",
    "camembert": "absolute",
    "electra": "absolute",
    "bert-generation": "absolute",
    "data2vec-text": "absolute",
    "ernie": "absolute",
    "roc_bert": "absolute",
    "roberta-prelayernorm": "absolute",
    "distilbert": "absolute",
    "modernbert": "rope",
    "mpnet": "relative",
    "deberta-v2": "relative",
    "clip_text_model": "absolute",
    "siglip_text_model": "absolute",
    "siglip2_text_model": "absolute",
    "metaclip_2_text_model": "absolute",
}
# why one-tower models cannot be based on some of them
CAUSAL = "its tokens attend only to those before them, so that text would never see what comes after it"
PADDED = "it reads each text with the padding up to its longest one"
NO_BASES: Mapping[str, str] = {
    "deberta-v2": "its attention scores every two tokens by their distance, with no score for tokens that have none",
    "clip_text_model": CAUSAL,
    "metaclip_2_text_model": CAUSAL,
    "siglip_text_model": PADDED,
    "siglip2_text_model": PADDED,
}
