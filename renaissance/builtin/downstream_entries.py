"""The built-in tasks on items, described: those that are fine-tuned, those of the user's own, and probes."""

from __future__ import annotations

from renaissance.api import Output, TaskEntry
from renaissance.builtin.downstream_options import (
    ChoiceOptions,
    EntailmentOptions,
    ImageClassificationOptions,
    Nlvr2Options,
    OwnLabels,
    ProbeOptions,
    ReferringOptions,
    RegressionOptions,
    TextClassificationOptions,
    VqaOptions,
    ZeroShotOptions,
    answers_in,
    check_text_classification,
    check_zero_shot,
    labels_in,
    text_labels_in,
)

_POOLED: frozenset[Output] = frozenset({"pooled"})
_CLASSIFICATION = "renaissance.builtin.classification"
_TWO = {"labels": ["no", "yes"]}


def _probe(name: str, summary: str) -> TaskEntry:
    return TaskEntry(
        name=name,
        summary=summary,
        factory=f"renaissance.builtin.probes:{name}",
        options=ProbeOptions,
        needs_any=("itm", "itc"),
        trains=False,
        data="items",
        layouts=(name,),
    )


DOWNSTREAM = (
    TaskEntry(
        name="vqa",
        summary="Questions about an image: choose one of the answers (soft targets, binary cross-entropy)",
        factory=f"{_CLASSIFICATION}:vqa",
        options=VqaOptions,
        outputs=_POOLED,
        data="items",
        layouts=("vqav2", "gqa"),
        labels_of=answers_in,
    ),
    TaskEntry(
        name="nlvr2",
        summary="Is a sentence true of two images? (the text with each image, pooled vectors side by side)",
        factory=f"{_CLASSIFICATION}:nlvr2",
        options=Nlvr2Options,
        outputs=_POOLED,
        data="items",
        layouts=("nlvr2",),
        metrics=("accuracy", "consistency"),
        slots=2,
    ),
    TaskEntry(
        name="visual-entailment",
        summary="Does an image contradict a hypothesis, leave it open, or entail it? (SNLI-VE)",
        factory=f"{_CLASSIFICATION}:visual_entailment",
        options=EntailmentOptions,
        outputs=_POOLED,
        data="items",
        layouts=("snli-ve",),
        metrics=("accuracy",),
    ),
    TaskEntry(
        name="referring",
        summary="Which box does an expression refer to? (RefCOCO: among given boxes, or by IoU among detected ones)",
        factory="renaissance.builtin.choice:referring",
        options=ReferringOptions,
        outputs=_POOLED,
        data="items",
        layouts=("refcoco", "refcoco+", "refcocog"),
        metrics=("gt-choice accuracy", "accuracy"),
    ),
    TaskEntry(
        name="image-classification",
        summary="Choose the class of an image from its own vector (fine-tuned, or a linear probe of a frozen tower)",
        factory="renaissance.builtin.unimodal:image_classification",
        options=ImageClassificationOptions,
        labels_of=labels_in,
        tiny=_TWO,
        data="items",
        layouts=("image-classification", "cifar-10"),
    ),
    TaskEntry(
        name="text-classification",
        summary="Choose the label of a text, or of two, from their own vector (GLUE, each task with its metrics)",
        factory="renaissance.builtin.unimodal:text_classification",
        options=TextClassificationOptions,
        tiny=_TWO,
        data="items",
        layouts=("glue",),
        check=check_text_classification,
        labels_of=text_labels_in,
    ),
    TaskEntry(
        name="zero-shot-classification",
        summary="Choose the class of an image by ITC, from sentences with the names of the classes",
        factory="renaissance.builtin.zero_shot:ZeroShotClassification",
        options=ZeroShotOptions,
        needs=("itc",),
        trains=False,
        data="items",
        layouts=("image-classification", "cifar-10"),
        check=check_zero_shot,
    ),
    _probe("winoground", "Two images, two captions of the same words: which belong together? (text, image, group)"),
    _probe("aro", "Is the true caption above those with relations, attributes or the order of words changed?"),
    _probe("sugarcrepe", "Is the true caption above one in which one thing is changed, of seven kinds?"),
    TaskEntry(
        name="classification",
        summary="Your own: a label for an image with a text",
        factory=f"{_CLASSIFICATION}:classification",
        options=OwnLabels,
        labels_of=labels_in,
        tiny=_TWO,
        outputs=_POOLED,
        data="items",
    ),
    TaskEntry(
        name="pair",
        summary="Your own: a label for two images with a text",
        factory=f"{_CLASSIFICATION}:pair",
        options=OwnLabels,
        labels_of=labels_in,
        tiny=_TWO,
        outputs=_POOLED,
        data="items",
        slots=2,
    ),
    TaskEntry(
        name="choice",
        summary="Your own: which of several texts, images or boxes is right?",
        factory="renaissance.builtin.choice:choice",
        options=ChoiceOptions,
        outputs=_POOLED,
        data="items",
    ),
    TaskEntry(
        name="regression",
        summary="Your own: a number for an image with a text",
        factory="renaissance.builtin.regression:regression",
        options=RegressionOptions,
        outputs=_POOLED,
        data="items",
    ),
)
