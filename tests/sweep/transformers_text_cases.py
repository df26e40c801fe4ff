"""The text encoders of transformers, at small sizes from config alone."""

from __future__ import annotations

from typing import Any

from tests.sweep.cases import Case

SIZES: dict[str, Any] = {"layers": 2, "width": 32, "heads": 2, "mlp_width": 64, "max_tokens": 40}


def _case(model_type: str, family: str, *, without: tuple[str, ...] = (), **changes: Any) -> Case:
    sizes = {name: value for name, value in {**SIZES, **changes}.items() if name not in without}
    return Case(f"transformers:{model_type}", "text", family, {**sizes, "tokenizer": "renaissance", "dropout": 0.1})


def _refused(model_type: str, family: str, reason: str) -> Case:
    options = {**SIZES, "tokenizer": "renaissance"}
    return Case(f"transformers:{model_type}", "text", family, options, refused=reason)


CASES: tuple[Case, ...] = (
    _case("bert", "BERT"),
    _case("roberta", "RoBERTa"),
    _case("xlm-roberta", "XLM-RoBERTa"),
    _case("camembert", "CamemBERT"),
    _case("electra", "ELECTRA"),
    _case("deberta", "DeBERTa"),
    _case("deberta-v2", "DeBERTa-v2"),
    _case("modernbert", "ModernBERT"),
    _case("distilbert", "DistilBERT"),
    _case("mpnet", "MPNet"),
    _case("albert", "ALBERT"),
    _case("bert-generation", "BertGeneration"),
    _case("big_bird", "BigBird"),
    _case("convbert", "ConvBERT"),
    _case("data2vec-text", "Data2Vec"),
    _case("ernie", "ERNIE"),
    _case("eurobert", "EuroBERT"),
    _case("flaubert", "FlauBERT", without=("mlp_width",)),
    _case("fnet", "FNet", without=("heads",)),
    _case(
        "funnel",
        "Funnel",
        without=("layers",),
        overrides={"block_sizes": [1, 1], "block_repeats": [1, 1], "d_head": 16},
    ),
    _case("gte", "GTE"),
    _case("ibert", "I-BERT"),
    _case("jina_embeddings_v3", "Jina embeddings"),
    _case("layoutlm", "LayoutLM", overrides={"max_2d_position_embeddings": 16}),
    _case("lilt", "LiLT", width=48, heads=4, overrides={"max_2d_position_embeddings": 16}),
    _case("longformer", "Longformer"),
    _case("luke", "LUKE", overrides={"entity_vocab_size": 16, "entity_emb_size": 16}),
    _case("megatron-bert", "Megatron-BERT"),
    _case("mobilebert", "MobileBERT"),
    _case("nomic_bert", "NomicBERT"),
    _case("nystromformer", "Nystromformer"),
    _case("rembert", "RemBERT", overrides={"input_embedding_size": 16, "output_embedding_size": 16}),
    _case("roberta-prelayernorm", "RoBERTa, pre-norm"),
    _case("roc_bert", "RoCBert", overrides={"pronunciation_vocab_size": 16, "shape_vocab_size": 16}),
    _case("roformer", "RoFormer"),
    _case("splinter", "Splinter"),
    _case("squeezebert", "SqueezeBERT"),
    _case("tapas", "TAPAS"),
    _case("xlm", "XLM", without=("mlp_width",)),
    _case("xlm-roberta-xl", "XLM-RoBERTa-XL"),
    _case("xlnet", "XLNet", without=("width", "heads"), overrides={"d_model": 32, "n_head": 2, "d_head": 16}),
    _case("xmod", "X-MOD", overrides={"languages": ["en_XX"], "default_language": "en_XX"}),
    _case("yoso", "YOSO"),
    _case("t5", "T5", overrides={"d_kv": 16}),
    _case("mt5", "mT5", overrides={"d_kv": 16}),
    _case("umt5", "UMT5", overrides={"d_kv": 16}),
    _case("bart", "BART"),
    _case("mbart", "mBART"),
    _case("pegasus", "Pegasus"),
    _case("marian", "Marian"),
    _case("m2m_100", "M2M-100"),
    _case("clip_text_model", "CLIP"),
    _case("siglip_text_model", "SigLIP"),
    _case("chinese_clip_text_model", "Chinese CLIP"),
    _case("clap_text_model", "CLAP"),
    _case("metaclip_2_text_model", "MetaCLIP 2"),
    _case("siglip2_text_model", "SigLIP 2"),
    _case("tipsv2_text_model", "TIPS"),
    # it hashes code points, and has no vocabulary that a tokenizer's ids could be of
    _refused("canine", "CANINE", "is no text encoder"),
    # its attention needs a compiled kernel; without it the library gives zeros in its place
    _refused("mra", "MRA", "its first token does not see the last one"),
)
