"""What is known of the types of `transformers` text encoders without torch and without the library."""

from __future__ import annotations

from collections.abc import Mapping

from renaissance.api import Positions

# how those whose blocks we know tell their tokens apart
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
# whose blocks are BERT's: post-norm attention, then an MLP, so that cross attention can stand between the two
HALVED = frozenset(
    {
        "bert",
        "roberta",
        "xlm-roberta",
        "camembert",
        "electra",
        "bert-generation",
        "data2vec-text",
        "ernie",
        "roc_bert",
    }
)
# those that run as a whole, as the library runs them
AS_A_WHOLE = "it runs as a whole, as the library runs it: of its type the blocks are not known"
WHOLE_TYPES = frozenset(
    {
        "albert",
        "bart",
        "big_bird",
        "chinese_clip_text_model",
        "clap_text_model",
        "convbert",
        "deberta",
        "eurobert",
        "flaubert",
        "fnet",
        "funnel",
        "gte",
        "ibert",
        "jina_embeddings_v3",
        "layoutlm",
        "lilt",
        "longformer",
        "luke",
        "m2m_100",
        "marian",
        "mbart",
        "megatron-bert",
        "mobilebert",
        "mt5",
        "nomic_bert",
        "nystromformer",
        "pegasus",
        "rembert",
        "roformer",
        "splinter",
        "squeezebert",
        "t5",
        "tapas",
        "tipsv2_text_model",
        "umt5",
        "xlm",
        "xlm-roberta-xl",
        "xlnet",
        "xmod",
        "yoso",
    }
)
# model types that hold an encoder of each modality, and the type of that of text
TEXT_TOWERS: Mapping[str, str] = {
    "clip": "clip_text_model",
    "siglip": "siglip_text_model",
    "siglip2": "siglip2_text_model",
    "metaclip_2": "metaclip_2_text_model",
    "chinese_clip": "chinese_clip_text_model",
}
