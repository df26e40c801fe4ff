"""The backbones from Hugging Face `transformers`: two libraries of names, and the short names. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from renaissance.api import BackboneEntry
from renaissance.builtin.transformers_options import (
    LibraryTextOptions,
    LibraryVisionOptions,
    Published,
    SwinOptions,
    TextOptions,
    VisionOptions,
    describe_text,
    with_defaults,
)
from renaissance.builtin.transformers_vision_describing import describe_swin, describe_vision

TEXT_FACTORY = "renaissance.builtin.transformers_text:build"
VISION_FACTORY = "renaissance.builtin.transformers_vision:build"

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CENTRED = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
CROPPED = {"crop": 0.875, "resize": "shortest", "interpolation": "bicubic", **IMAGENET}

TINY_TEXT = {"layers": 2, "width": 32, "heads": 2, "mlp_width": 64, "max_tokens": 32, "tokenizer": "renaissance"}
TINY_VISION = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "heads": 2, "mlp_width": 64}
TINY_SWIN = {"image_size": 32, "patch_size": 4, "width": 32, "depths": [1, 1], "heads": [1, 2], "window": 4}

BERT_DATA = ("BooksCorpus", "Wikipedia")
DRAWN = ("drawn scenes of renaissance",)


def _text(published: Published, summary: str, sizes: Mapping[str, Any]) -> BackboneEntry:
    defaults = {"pooling": "first", "tokenizer": None, "dropout": 0.1, **sizes}
    return BackboneEntry(
        name=published.name,
        summary=summary,
        factory=TEXT_FACTORY,
        options=with_defaults(TextOptions, published, defaults),
        tiny=TINY_TEXT,
        modality="text",
        describe=describe_text,
    )


def _vision(published: Published, summary: str, sizes: Mapping[str, Any]) -> BackboneEntry:
    defaults = {"image_size": 224, "patch_size": 16, "dropout": 0.0, **sizes}
    return BackboneEntry(
        name=published.name,
        summary=summary,
        factory=VISION_FACTORY,
        options=with_defaults(VisionOptions, published, defaults),
        tiny=TINY_VISION,
        modality="vision",
        describe=describe_vision,
    )


def _swin(published: Published, summary: str, depths: list[int]) -> BackboneEntry:
    return BackboneEntry(
        name=published.name,
        summary=summary,
        factory=VISION_FACTORY,
        options=with_defaults(SwinOptions, published, {"depths": depths}),
        tiny=TINY_SWIN,
        modality="vision",
        describe=describe_swin,
    )


def _sizes(layers: int, width: int, heads: int, mlp_width: int, **others: Any) -> dict[str, Any]:
    return {"layers": layers, "width": width, "heads": heads, "mlp_width": mlp_width, **others}


def _vit(name: str, model: str, preprocessing: Mapping[str, Any], *trained_on: str) -> Published:
    return Published(name, model, "vit", 12, preprocessing=preprocessing, trained_on=trained_on)


def _bert_like(name: str, model: str | None, model_type: str, depth: int, **config: Any) -> Published:
    return Published(name, model, model_type, depth, config=config, trained_on=BERT_DATA, vocabulary=30522)


VISION = (
    _vision(
        _vit(
            "vit-base",
            "google/vit-base-patch16-224-in21k",
            {"resize": "squash", "interpolation": "bilinear", **CENTRED},
            "ImageNet-21k",
        ),
        "ViT-B/16, trained on the labels of ImageNet-21k.",
        _sizes(12, 768, 12, 3072),
    ),
    _vision(
        _vit("deit-tiny", "facebook/deit-tiny-patch16-224", CROPPED, "ImageNet-1k"),
        "DeiT-Ti/16, trained on the labels of ImageNet-1k.",
        _sizes(12, 192, 3, 768),
    ),
    _vision(
        _vit("deit-small", "facebook/deit-small-patch16-224", CROPPED, "ImageNet-1k"),
        "DeiT-S/16, trained on the labels of ImageNet-1k.",
        _sizes(12, 384, 6, 1536),
    ),
    _vision(
        _vit("dino-small", "facebook/dino-vits16", CROPPED, "ImageNet-1k"),
        "ViT-S/16, trained by DINO on ImageNet-1k without labels.",
        _sizes(12, 384, 6, 1536),
    ),
    _swin(
        Published(
            "swin-tiny",
            "microsoft/swin-tiny-patch4-window7-224",
            "swin",
            12,
            preprocessing=CROPPED,
            trained_on=("ImageNet-1k",),
        ),
        "Swin-T, trained on the labels of ImageNet-1k.",
        [2, 2, 6, 2],
    ),
    _swin(
        Published(
            "swin-small",
            "microsoft/swin-small-patch4-window7-224",
            "swin",
            24,
            config={"drop_path_rate": 0.3},
            preprocessing=CROPPED,
            trained_on=("ImageNet-1k",),
        ),
        "Swin-S, trained on the labels of ImageNet-1k.",
        [2, 2, 18, 2],
    ),
    _vision(
        Published("tiny-vit", None, "vit", 4, preprocessing=CENTRED, trained_on=DRAWN, bundled=True),
        "A small ViT for work on a CPU, trained on attributes of drawn things; its weights ship with renaissance.",
        _sizes(4, 128, 4, 256, image_size=64, patch_size=8),
    ),
)

TEXT = (
    _text(
        _bert_like("bert-base", "google-bert/bert-base-uncased", "bert", 12),
        "BERT-base, uncased.",
        _sizes(12, 768, 12, 3072, max_tokens=512),
    ),
    _text(
        _bert_like("electra-small", "google/electra-small-discriminator", "electra", 12, embedding_size=128),
        "ELECTRA-small, the discriminator.",
        _sizes(12, 256, 4, 1024, max_tokens=512),
    ),
    _text(
        _bert_like("electra-base", "google/electra-base-discriminator", "electra", 12, embedding_size=768),
        "ELECTRA-base, the discriminator.",
        _sizes(12, 768, 12, 3072, max_tokens=512),
    ),
    _text(
        _bert_like("tinybert-4l", "huawei-noah/TinyBERT_General_4L_312D", "bert", 4),
        "TinyBERT, 4 blocks, distilled from BERT-base.",
        _sizes(4, 312, 12, 1200, max_tokens=512),
    ),
    _text(
        Published(
            "roberta-base",
            "FacebookAI/roberta-base",
            "roberta",
            12,
            config={"type_vocab_size": 1, "layer_norm_eps": 1e-5},
            trained_on=("BooksCorpus", "Wikipedia", "CC-News", "OpenWebText", "Stories"),
            vocabulary=50265,
        ),
        "RoBERTa-base.",
        _sizes(12, 768, 12, 3072, max_tokens=512),
    ),
    _text(
        Published(
            "roberta-large",
            "FacebookAI/roberta-large",
            "roberta",
            24,
            config={"type_vocab_size": 1, "layer_norm_eps": 1e-5},
            trained_on=("BooksCorpus", "Wikipedia", "CC-News", "OpenWebText", "Stories"),
            vocabulary=50265,
        ),
        "RoBERTa-large.",
        _sizes(24, 1024, 16, 4096, max_tokens=512),
    ),
    _text(
        Published("tiny-bert", None, "bert", 3, trained_on=DRAWN, bundled=True),
        "A small BERT for work on a CPU, trained on captions of drawn scenes; its weights and WordPiece ship.",
        _sizes(3, 128, 4, 256, max_tokens=64, tokenizer="renaissance", pooling="mean"),
    ),
)

LIBRARIES = (
    BackboneEntry(
        name="transformers",
        summary="Any text encoder of Hugging Face transformers: BERT, RoBERTa, ELECTRA, DeBERTa-v2, ModernBERT ...",
        factory=TEXT_FACTORY,
        options=LibraryTextOptions,
        tiny={"model": "bert", **TINY_TEXT},
        modality="text",
        describe=describe_text,
        library=True,
    ),
    BackboneEntry(
        name="transformers",
        summary="Vision encoders of Hugging Face transformers: ViT, DINO, BEiT, CLIP, Swin, ConvNeXt, ResNet ...",
        factory=VISION_FACTORY,
        options=LibraryVisionOptions,
        tiny={"model": "vit", **TINY_VISION},
        modality="vision",
        describe=describe_vision,
        library=True,
    ),
)

BACKBONES: tuple[BackboneEntry, ...] = (*VISION, *TEXT, *LIBRARIES)
