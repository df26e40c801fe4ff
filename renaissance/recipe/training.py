"""How a run trains: augmentation, tasks, batches, optimiser, budget, schedule."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from renaissance.recipe.freezing import PartName
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

    views: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        None, description="So many seeded views of each sample, drawn anew in each epoch; null: another one in each."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.crop is not None and self.crop[0] > self.crop[1]:
            raise ValueError(f"'crop' is (least, greatest) share, and {self.crop[0]} is more than {self.crop[1]}")
        return self

    @property
    def any(self) -> bool:
        """Whether anything is changed at all."""
        return self.crop is not None or self.flip or self.randaugment > 0

    @property
    def least_share(self) -> float | None:
        """The least share of an image's area that a random crop keeps; None without one."""
        return None if self.crop is None else self.crop[0]


class TaskUse(Strict):
    """A task, with its weight in the sum of losses and its options."""

    weight: NotNegative = 1.0
    options: JsonOptions = Field(default_factory=dict)


class BatchSize(Strict):
    """Pairs of image and caption an update: `size` over all processes, in `accumulation` parts."""

    size: Annotated[int, Field(ge=1, le=2**20)] = 64
    accumulation: Annotated[int, Field(ge=1, le=2**16)] = 1
    cached: bool = Field(
        False, description="The parts are one batch to contrast and to hard negatives; each is computed twice."
    )

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.size % self.accumulation:
            raise ValueError(f"'size' {self.size} is not a multiple of 'accumulation' {self.accumulation}")
        if self.cached and self.accumulation == 1:
            raise ValueError(
                "'cached' runs a batch in 'accumulation' parts, and there is one; give more, or leave it out"
            )
        return self

    @property
    def batches(self) -> int:
        """Batches an update, each with a loss of its own."""
        return 1 if self.cached else self.accumulation

    @property
    def parts(self) -> int:
        """Parts in which the encoder runs a batch."""
        return self.accumulation if self.cached else 1


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
    multipliers: dict[PartName, Positive] = Field(
        default_factory=dict, description="Learning rates of parts, as multiples of `lr`: 'text[-2:]: 2.0'; later win."
    )
    layer_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="Each layer of a tower learns at this share of the rate of the layer above it."
    )
    clip_norm: Positive | None = Field(1.0, description="Greatest norm of all gradients together; null: no clipping.")


class Budget(Strict):
    """How long to train: exactly one of these. Arms of a study that are to cost the same share `flops` or `seconds`."""

    steps: Count | None = Field(None, description="Updates.")
    epochs: Count | None = Field(None, description="Passes over the training samples.")
    samples: Count | None = Field(None, description="Pairs or items, in whole batches.")
    flops: Annotated[float, Field(gt=0, le=1e30)] | None = Field(
        None, description="Of matrix products and convolutions, forward and backward, in all processes: 1.0e+15."
    )
    seconds: Positive | None = Field(
        None, description="Of updates: without the first of each start, evaluation and checkpoints."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of 'steps', 'epochs', 'samples', 'flops' and 'seconds', and not {len(given)}")
        return self

    @property
    def counted(self) -> bool:
        """Whether it is known before how many updates it holds."""
        return self.flops is None and self.seconds is None


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
        return int(steps * self.share)

    @property
    def share(self) -> float:
        """The warm-up's share of a training whose updates are not known before."""
        return 0.1 if self.warmup_share is None else self.warmup_share


class Ema(Strict):
    """An exponential moving average of the trainable weights, which is measured and saved in their place."""

    decay: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.999, description="Share of itself that an average keeps at an update; less in the first ones."
    )
