"""Options of the built-in tasks on items, and what they take from the training items. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, field_validator

from renaissance.api import Item, Options
from renaissance.errors import SpecError

LabelSet = Annotated[tuple[str, ...], Field(min_length=2, max_length=100_000)]
Hidden = Annotated[int, Field(ge=1, le=65_536)] | None
Glue = Literal["cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "wnli"]
GLUE_LABELS: dict[Glue, tuple[str, ...]] = {
    "cola": ("0", "1"),
    "sst2": ("0", "1"),
    "mrpc": ("0", "1"),
    "qqp": ("0", "1"),
    "mnli": ("contradiction", "neutral", "entailment"),
    "qnli": ("not_entailment", "entailment"),
    "rte": ("not_entailment", "entailment"),
    "wnli": ("0", "1"),
}

_HIDDEN = "Hidden width of the head; twice that of the pooled vector if it is not given."
_LABELS = "The labels, in the order of the head's outputs."
_FROM_DATA = "null: those of the training items, when a run starts."
_FIELD = "The field of the items that holds it; null: their label."


class _Labelled(Options):
    """Options of every choice among labels."""

    @field_validator("labels", check_fields=False)
    @classmethod
    def _distinct(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is not None and len(set(labels)) < len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            raise ValueError(f"the label '{twice}' stands there twice")
        return labels


class ClassificationOptions(_Labelled):
    """Options of choosing one of several labels for images with a text."""

    hidden: Hidden = Field(None, description=_HIDDEN)


class VqaOptions(ClassificationOptions):
    """Options of answering questions."""

    labels: LabelSet | None = Field(
        ("no", "yes"), description=f"The answers, in the order of the head's outputs; {_FROM_DATA}", strict=False
    )
    minimum: Annotated[int, Field(ge=1)] = Field(
        9,
        description="How often the training items give an answer that becomes one of the labels, where these are null.",
    )


class Nlvr2Options(ClassificationOptions):
    """Options of telling whether a sentence is true of two images."""

    labels: LabelSet = Field(("False", "True"), description=_LABELS, strict=False)


class EntailmentOptions(ClassificationOptions):
    """Options of visual entailment."""

    labels: LabelSet = Field(("contradiction", "neutral", "entailment"), description=_LABELS, strict=False)


class OwnLabels(ClassificationOptions):
    """Options of a task of the user's own that chooses a label."""

    labels: LabelSet | None = Field(description=f"{_LABELS} {_FROM_DATA}", strict=False)
    field: str | None = Field(None, description=_FIELD)


class RegressionOptions(Options):
    """Options of a task of the user's own that tells a number."""

    field: str | None = Field(None, description=_FIELD)
    hidden: Hidden = Field(None, description=_HIDDEN)


class ReferringOptions(Options):
    """Options of finding what an expression refers to."""

    hidden: Hidden = Field(None, description=_HIDDEN)


class ChoiceOptions(ReferringOptions):
    """Options of a task of the user's own that chooses a candidate."""

    candidates: Literal["texts", "images", "boxes"] = Field(
        "texts", description="Several texts for an image, several images for a text, or boxes of an image for a text."
    )


class ImageClassificationOptions(_Labelled):
    """Options of classifying images."""

    labels: LabelSet | None = Field(description=f"{_LABELS} {_FROM_DATA}", strict=False)


class TextClassificationOptions(_Labelled):
    """Options of classifying texts, or pairs of texts."""

    subset: Glue | None = Field(None, description="The task of GLUE: it says the labels and the metrics.")
    labels: LabelSet | None = Field(
        None, description=f"{_LABELS} Not with a subset. Written as {_FROM_DATA}", strict=False
    )


class ZeroShotOptions(_Labelled):
    """Options of classifying images without training."""

    labels: LabelSet | None = Field(None, description="The classes; null: all labels of the split.", strict=False)
    names: tuple[str, ...] | None = Field(
        None, description="How to say each of the labels; null: the label, '_' as a space.", strict=False
    )
    templates: Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)] = Field(
        ("a photo of a {}.",), description="Sentences in which {} stands for the name of a class.", strict=False
    )


class ProbeOptions(Options):
    """Options of probes."""

    by: Literal["itm", "itc"] | None = Field(
        None, description="Which scores are compared; null: ITM's where the model has them, else ITC's."
    )


def check_text_classification(options: TextClassificationOptions, trained: frozenset[str]) -> None:
    """Refuse what has no labels, or two sets of them; that they are null must be written, as a subset is more usual.

    Raises:
        SpecError: saying what to write.
    """
    from_data = options.labels is None and "labels" in options.model_fields_set
    if (options.subset is None) == (options.labels is None) and not (options.subset is None and from_data):
        raise SpecError("'text-classification': give either 'labels', or the 'subset' of GLUE that it is for.")


def check_zero_shot(options: ZeroShotOptions, trained: frozenset[str]) -> None:
    """Refuse names that are not those of the labels, and templates without a place for them.

    Raises:
        SpecError: saying what to write.
    """
    if options.names is not None and len(options.names) != len(options.labels or ()):
        raise SpecError("'zero-shot-classification': give as many 'names' as 'labels', in their order.")
    odd = next((template for template in options.templates if "{}" not in template), None)
    if odd is not None:
        raise SpecError(
            f"'zero-shot-classification': the template '{odd}' has no place for the class; write it as {{}}."
        )


def answers_in(options: VqaOptions, items: Iterable[Item]) -> tuple[str, ...]:
    """Return the normalised answers that are given often enough, the frequent first; of each item the commonest."""
    from renaissance.toolkit.vqa import vocabulary

    told = (item.label if item.label is not None else next(iter(item.answers), None) for item in items)
    return vocabulary((answer for answer in told if answer is not None), minimum=options.minimum)


def labels_in(options: OwnLabels | ImageClassificationOptions, items: Iterable[Item]) -> tuple[str, ...]:
    """Return the labels of items in the order of the alphabet."""
    field = getattr(options, "field", None)
    told = (item.label if field is None else item.fields.get(field) for item in items)
    return tuple(sorted({label for label in told if label is not None}))


def text_labels_in(options: TextClassificationOptions, items: Iterable[Item]) -> tuple[str, ...] | None:
    """Return the labels of items in the order of the alphabet; None where a subset says them."""
    return None if options.subset is not None else tuple(sorted({i.label for i in items if i.label is not None}))
