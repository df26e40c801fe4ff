"""The built-in tasks, described."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from renaissance.api import Options, TaskEntry
from renaissance.errors import SpecError

Projection = Literal["linear", "residual"]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Epsilon = Annotated[float, Field(gt=0.0, le=0.01)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]


class MlmOptions(Options):
    """Options of masked language modelling."""

    probability: Share = Field(0.15, description="Share of the tokens that are predicted.")
    whole_word: bool = Field(False, description="Choose whole words: all tokens of one, or none.")
    at_least_one: bool = Field(
        False, description="Predict at least one token of each caption (short captions often have none)."
    )
    norm_eps: Epsilon = Field(1e-12, description="What the head's LayerNorm adds to the variance.")


class ItmOptions(Options):
    """Options of image-text matching."""

    false_share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5, description="Share of the pairs whose image is another one."
    )


class ItcOptions(Options):
    """Options of image-text contrast."""

    width: Annotated[int, Field(ge=1, le=65_536)] = Field(256, description="Width of the shared space.")
    vision_projection: Projection = Field("linear", description="'residual' adds an MLP to the linear projection.")
    text_projection: Projection = Field("linear", description="'residual' adds an MLP to the linear projection.")
    hidden: Annotated[int, Field(ge=1, le=65_536)] = Field(512, description="Hidden width of that MLP.")
    dropout: Rate = Field(0.0, description="Dropout inside that MLP, in training.")
    feature_dropout: Rate = Field(0.0, description="Dropout of the towers' vectors before projection, in training.")
    loss: Literal["softmax", "sigmoid"] = Field(
        "softmax", description="InfoNCE over the batch (CLIP), or each pair by itself, with a learned bias (SigLIP)."
    )
    temperature: Annotated[float, Field(gt=0.0, le=10.0)] | None = Field(
        None, description="First value; it is learned. null: 0.07, or 0.1 with the sigmoid loss."
    )


class RetrievalOptions(Options):
    """Options of image-text retrieval."""

    rerank: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0, description="Re-rank so many of the best by ITC with ITM scores; 0: none."
    )


def check_retrieval(options: RetrievalOptions, trained: frozenset[str]) -> None:
    """Refuse to re-rank without the scores to re-rank by.

    Raises:
        SpecError: `rerank` is asked for, and 'itm' is not trained.
    """
    if options.rerank and "itm" not in trained:
        raise SpecError("'retrieval': rerank orders by ITM scores; add the task 'itm', or leave rerank out.")


class ClassificationOptions(Options):
    """Options of choosing one of several labels."""

    labels: Annotated[tuple[str, ...], Field(min_length=2, max_length=100_000)] = Field(
        ("false", "true"), description="The labels, in the order of the head's outputs.", strict=False
    )
    hidden: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        None, description="Hidden width of the head; twice that of the pooled vector if it is not given."
    )


class VqaOptions(ClassificationOptions):
    """Options of answering questions."""

    labels: Annotated[tuple[str, ...], Field(min_length=2, max_length=100_000)] = Field(
        ("no", "yes"), description="The answers, in the order of the head's outputs.", strict=False
    )


TASKS = (
    TaskEntry(
        name="mlm",
        summary="Masked language modelling: predict masked tokens of the caption from the image and the rest",
        factory="renaissance.builtin.mlm:MaskedLanguageModelling",
        options=MlmOptions,
        outputs=frozenset({"text"}),
        evaluates=False,
    ),
    TaskEntry(
        name="itm",
        summary="Image-text matching: does the caption belong to the image? (1:1, false images from the batch)",
        factory="renaissance.builtin.itm:ImageTextMatching",
        options=ItmOptions,
        outputs=frozenset({"pooled"}),
        needs_negatives=True,
    ),
    TaskEntry(
        name="itc",
        summary="Image-text contrast: InfoNCE or sigmoid loss over all processes, every caption of an image a positive",
        factory="renaissance.builtin.itc:ImageTextContrast",
        options=ItcOptions,
        tiny={"width": 32},
        needs_negatives=True,
        evaluates=False,
    ),
    TaskEntry(
        name="retrieval",
        summary="Image-text retrieval: recall at 1, 5 and 10 both ways, by ITC, or by ITC then ITM",
        factory="renaissance.builtin.retrieval:Retrieval",
        options=RetrievalOptions,
        needs_any=("itc",),
        trains=False,
        check=check_retrieval,
    ),
    TaskEntry(
        name="vqa",
        summary="Questions about an image: choose one of the answers (soft targets, binary cross-entropy)",
        factory="renaissance.builtin.classification:vqa",
        options=VqaOptions,
        outputs=frozenset({"pooled"}),
        data="items",
        layouts=("vqav2", "gqa"),
        evaluates=False,
    ),
    TaskEntry(
        name="nlvr2",
        summary="Is a sentence true of two images? (the text with each image, pooled vectors side by side)",
        factory="renaissance.builtin.classification:nlvr2",
        options=ClassificationOptions,
        outputs=frozenset({"pooled"}),
        data="items",
        layouts=("nlvr2",),
        slots=2,
    ),
)
