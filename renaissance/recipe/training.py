"""How a run trains: augmentation, tasks, batches, optimiser, budget, schedule."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from renaissance.recipe.values import Count, NotNegative, Positive, Share
from renaissance.spec import JsonOptions, Strict


class Augmentation(Strict):
    """Random changes of training images, each a function of (seed, epoch, sample id)."""

    crop: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None, strict=False, description="Random resized crop: least and greatest share of the area."
    )
    flip: bool = Field(False, description="Mirror half of the images; wrong where captions say left and right.")
    randaugment: Annotated[int, Field(ge=0, le=10)] = Field(0, description="Operations of RandAugment; 0: none.")
    magnitude: Annotated[int, Field(ge=0, le=30)] = Field(9, description="Strength of RandAugment.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.crop is not None and self.crop[0] > self.crop[1]:
            raise ValueError(f"'crop' is (least, greatest) share, and {self.crop[0]} is more than {self.crop[1]}")
        return self

    @property
    def any(self) -> bool:
        """Whether anything is changed at all."""
        return self.crop is not None or self.flip or self.randaugment > 0


class TaskUse(Strict):
    """A task, with its weight in the sum of losses and its options."""

    weight: NotNegative = 1.0
    options: JsonOptions = Field(default_factory=dict)


class BatchSize(Strict):
    """Pairs of image and caption an update: `size` over all processes, in `accumulation` parts."""

    size: Annotated[int, Field(ge=1, le=2**20)] = 64
    accumulation: Annotated[int, Field(ge=1, le=2**16)] = 1

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.size % self.accumulation:
            raise ValueError(f"'size' {self.size} is not a multiple of 'accumulation' {self.accumulation}")
        return self


class Optimiser(Strict):
    """AdamW with parameter groups: no decay on norms, biases and embeddings of positions; multipliers by part."""

    lr: Positive = 1e-4
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.98), strict=False
    )
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.01
    fusion_multiplier: Positive = Field(5.0, description="Learning rate of the fusion, as a multiple of `lr`.")
    head_multiplier: Positive = Field(5.0, description="Learning rate of the task heads, as a multiple of `lr`.")
    clip_norm: Positive | None = Field(1.0, description="Greatest norm of all gradients together; null: no clipping.")


class Budget(Strict):
    """How long to train: `steps` updates, or `epochs` passes over the training samples."""

    steps: Count | None = None
    epochs: Count | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give one of 'steps' and 'epochs'")
        return self


class Schedule(Strict):
    """Warm-up, then decay to zero: linear or cosine."""

    decay: Literal["linear", "cosine", "none"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    warmup_share: Share | None = Field(None, description="Of all updates; default 0.1.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.warmup_steps is not None and self.warmup_share is not None:
            raise ValueError("give one of 'warmup_steps' and 'warmup_share'")
        return self

    def warmup(self, steps: int) -> int:
        """Return the updates of warm-up in a training of `steps` updates."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return int(steps * (0.1 if self.warmup_share is None else self.warmup_share))
