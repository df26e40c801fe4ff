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
Momentum = Annotated[float, Field(ge=0.0, le=1.0)]


class ImitatingOptions(Options):
    """Options of a task that can learn from a momentum teacher as well."""

    distillation: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.0, description="Share of a momentum teacher's soft targets (ALBEF: 0.4); 0: no teacher."
    )
    distillation_ramp: Annotated[int, Field(ge=0)] = Field(
        1000, description="Updates over which that share grows from 0 to its full value."
    )
    momentum: Momentum = Field(0.995, description="What a momentum teacher keeps of its own weights at each update.")


class MlmOptions(ImitatingOptions):
    """Options of masked language modelling."""

    probability: Share = Field(0.15, description="Share of the tokens that are predicted.")
    whole_word: bool = Field(False, description="Choose whole words: all tokens of one, or none.")
    at_least_one: bool = Field(
        False, description="Predict at least one token of each caption (short captions often have none)."
    )
    norm_eps: Epsilon = Field(1e-12, description="What the head's LayerNorm adds to the variance.")


class ItmOptions(ImitatingOptions):
    """Options of image-text matching."""

    negatives: Literal["random", "hard"] = Field(
        "random", description="Draw false partners equally often, or by their ITC similarity (needs 'itc')."
    )
    hardness: Literal["sampled", "hardest"] = Field(
        "sampled", description="Draw hard ones by the softmax of the similarities (ALBEF), or take the most similar."
    )
    replaced: Literal["image", "text", "both"] = Field(
        "image",
        description="Side that is another one in a false pair. 'both': each pair is kept, and twice false (1:2).",
    )
    false_share: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.5, description="Share of the pairs that are made false (0.5: 1:1), where one side is replaced."
    )
    max_similarity: Annotated[float, Field(ge=-1.0, le=1.0)] | None = Field(
        None, description="No false partner has a greater cosine than this by ITC: it may be a true one (needs 'itc')."
    )


def check_itm(options: ItmOptions, trained: frozenset[str]) -> None:
    """Refuse hard negatives without what makes them hard, and a share of what is fixed.

    Raises:
        SpecError: saying what does not fit.
    """
    wanted = "negatives=hard" if options.negatives == "hard" else "max_similarity"
    if "itc" not in trained and (options.negatives == "hard" or options.max_similarity is not None):
        raise SpecError(f"'itm': {wanted} reads the similarities of 'itc'; add the task 'itc', or leave it out.")
    if options.replaced == "both" and options.false_share != ItmOptions.model_fields["false_share"].default:
        raise SpecError("'itm': with replaced=both a third of the pairs is true; leave false_share out.")


class RankOptions(Options):
    """Options of ranking."""

    false_texts: Annotated[int, Field(ge=1, le=1023)] = Field(
        15, description="Texts of other images that the true one is ranked among, as far as the batch has them."
    )


def check_rank(options: RankOptions, trained: frozenset[str]) -> None:
    """Refuse a head that begins as another which is not there.

    Raises:
        SpecError: 'itm' is not trained.
    """
    if "itm" not in trained:
        raise SpecError("'rank' begins as the head of 'itm' and is trained beside it; add 'itm' (METER: weight 0.5).")


class ItcOptions(ImitatingOptions):
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
    queue: Annotated[int, Field(ge=0, le=2**20)] = Field(
        0,
        description="Past images and texts to contrast with beside the batch (ALBEF: 65536). All that is contrasted "
        "with is then encoded by the momentum teacher.",
    )


def check_itc(options: ItcOptions, trained: frozenset[str]) -> None:
    """Refuse a queue and a teacher for a loss that compares no pair with another.

    Raises:
        SpecError: naming the option.
    """
    if options.loss == "sigmoid" and (options.queue or options.distillation):
        name = "queue" if options.queue else "distillation"
        raise SpecError(f"'itc': {name} is for the softmax over candidates; leave it out with the sigmoid loss.")


class MimOptions(Options):
    """Options of masked image modelling."""

    probability: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(0.4, description="Share of the patches to hide.")
    masking: Literal["random", "blocks"] = Field(
        "random", description="Hide single patches, or rectangular blocks of them (BEiT)."
    )
    patch_size: Annotated[int, Field(ge=1, le=512)] = Field(
        16, description="Side in pixels of a patch; it must be that of the vision backbone's tokens."
    )
    target: Literal["pixels", "features", "vision"] = Field(
        "pixels",
        description="Predict each patch's pixels, normalised, or what a teacher makes of it in the whole picture: its "
        "fused token, or the token of its vision tower.",
    )
    momentum: Momentum = Field(
        1.0, description="What that teacher keeps of its own weights; 1: the model as it was when training began."
    )


class RetrievalOptions(Options):
    """Options of image-text retrieval."""

    rerank: Annotated[int, Field(ge=0, le=100_000)] | Literal["all"] = Field(
        0, description="Re-rank so many of the best by ITC with ITM scores; 0: none; 'all': score every pair by ITM."
    )
    score: Literal["itm", "itm+itc", "rank"] = Field(
        "itm",
        description="Re-rank by ITM's logit (ALBEF), by its sum with ITC's similarity (LAVIS), or by that of 'rank' "
        "(METER).",
    )


def check_retrieval(options: RetrievalOptions, trained: frozenset[str]) -> None:
    """Refuse to rank without the scores to rank by.

    Raises:
        SpecError: a task is not trained whose scores are asked for.
    """
    if options.rerank and "itm" not in trained:
        raise SpecError("'retrieval': rerank orders by ITM scores; add the task 'itm', or leave rerank out.")
    if options.score == "rank" and "rank" not in trained:
        raise SpecError("'retrieval': score=rank orders by the head of 'rank'; add that task, or leave score out.")
    if "itc" not in trained and not (options.rerank == "all" and options.score != "itm+itc"):
        raise SpecError("'retrieval' orders by ITC's similarities; add the task 'itc', or say rerank=all, score=itm.")


# by ITC, by ITM alone (full), by both (reranked); both ways, their means, and the sum
_RECALLS = tuple(
    f"{by}{what}"
    for by in ("", "full ", "reranked ")
    for what in (*(f"{side}R@{k}" for side in ("text ", "image ", "") for k in (1, 5, 10)), "sum of R@k")
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
        summary="Image-text matching: does the caption belong to the image? (1:1, false images of all processes; "
        "or 1:2 with both sides, random or hard)",
        factory="renaissance.builtin.itm:ImageTextMatching",
        options=ItmOptions,
        outputs=frozenset({"pooled"}),
        needs_negatives=True,
        metrics=("accuracy",),
        check=check_itm,
    ),
    TaskEntry(
        name="rank",
        summary="Ranking, to fine-tune for retrieval: the caption of an image among false ones, beside itm (METER)",
        factory="renaissance.builtin.rank:Ranking",
        options=RankOptions,
        tiny={"false_texts": 1},
        outputs=frozenset({"pooled"}),
        needs_negatives=True,
        evaluates=False,
        begins_as="itm",
        check=check_rank,
    ),
    TaskEntry(
        name="itc",
        summary="Image-text contrast: InfoNCE or sigmoid loss over all processes, every caption of an image a positive",
        factory="renaissance.builtin.itc:ImageTextContrast",
        options=ItcOptions,
        tiny={"width": 32},
        needs_negatives=True,
        evaluates=False,
        check=check_itc,
    ),
    TaskEntry(
        name="mim",
        summary="Masked image modelling: predict hidden patches (pixels or features) from the rest and the caption",
        factory="renaissance.builtin.mim:MaskedImageModelling",
        options=MimOptions,
        tiny={"patch_size": 8},
        outputs=frozenset({"vision"}),
        evaluates=False,
    ),
    TaskEntry(
        name="retrieval",
        summary="Image-text retrieval: recall at 1, 5 and 10 both ways, by ITC, by ITC then ITM, or by ITM alone",
        factory="renaissance.builtin.retrieval:Retrieval",
        options=RetrievalOptions,
        needs_any=("itc", "itm"),
        trains=False,
        metrics=_RECALLS,
        check=check_retrieval,
    ),
)
