"""Every kind of tower that open_clip's model configs have, at small sizes from config alone."""

from __future__ import annotations

from typing import Any

from tests.sweep.cases import Case

VIT: dict[str, Any] = {"width": 32, "layers": 2, "heads": 2, "patch_size": 16, "embed_dim": 32}
TEXT: dict[str, Any] = {"width": 32, "layers": 2, "heads": 2, "embed_dim": 32}


def _vision(model: str, kind: str, *, image_size: int = 64, **overrides: Any) -> Case:
    options = {"image_size": image_size, "overrides": overrides}
    return Case(f"open-clip:{model}", "vision", f"open_clip {kind}", options)


def _text(model: str, kind: str, **overrides: Any) -> Case:
    return Case(f"open-clip:{model}", "text", f"open_clip {kind}", {"overrides": {**TEXT, **overrides}})


def _refused(model: str, kind: str, reason: str) -> Case:
    return Case(f"open-clip:{model}", "text", f"open_clip {kind}", refused=reason)


CASES: tuple[Case, ...] = (
    _vision("ViT-B-32", "CLIP ViT", **VIT),
    _vision("ViT-B-32-quickgelu", "CLIP ViT", **{**VIT, "embed_dim": 16}),
    _vision("ViT-B-16-plus-240", "CLIP ViT", **VIT),
    _vision("ViT-L-14-CLIPA", "CLIPA ViT", **VIT),
    _vision("coca_ViT-B-32", "CoCa ViT", **VIT, attn_pooler_queries=4),
    _vision("ViT-B-32", "CLIP ViT with norms in its attention", **VIT, qk_norm=True, scale_attn=True, scale_fc=True),
    _vision("ViT-B-32", "CLIP ViT with fixed positions", **VIT, pos_embed_type="sin_cos_2d"),
    _vision("RN50", "modified ResNet", image_size=128, layers=[1, 1, 1, 1], width=8, embed_dim=16),
    _vision("ViT-B-16-SigLIP", "timm, MAP pooling", timm_model_name="test_vit3"),
    _vision("EVA02-B-16", "timm, class token", image_size=96, timm_model_name="eva02_tiny_patch14_224"),
    _vision("PE-Core-S-16-384", "timm, MAP pooling and projection", timm_model_name="vit_pe_core_tiny_patch16_384"),
    _vision("convnext_base", "timm, linear projection", image_size=128, timm_model_name="convnext_atto"),
    _vision("convnext_large_d", "timm, MLP projection", image_size=128, timm_model_name="convnext_atto"),
    _vision("MobileCLIP2-S0", "timm, mean pooling", image_size=128, timm_model_name="resnet10t"),
    _text("ViT-B-32", "CLIP text"),
    _text("ViT-B-32-quickgelu", "CLIP text", embed_dim=16),
    _text("coca_ViT-B-32", "CoCa text, class token"),
    _text("MobileCLIP-B", "CLIP text"),
    _text("MobileCLIP2-S0", "CLIP text, both directions", pool_type="argmax"),
    _text("ViT-B-32", "SigLIP text, last token", no_causal_mask=True, pool_type="last", proj_bias=True),
    _text("ViT-B-32", "SigLIP text without projection", no_causal_mask=True, pool_type="last", proj_type="none"),
    _text("ViT-B-32", "CLIP text, end of text by its id", pool_type="eos", eos_id=49407),
    _refused("roberta-ViT-B-32", "Hugging Face text", "transformers:roberta-base"),
)
