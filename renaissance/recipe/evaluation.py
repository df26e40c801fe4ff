"""What a run measures, and how often."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from renaissance.recipe.values import Count, Name, NotNegative, Positive
from renaissance.spec import JsonOptions, Strict


class Bridge(Strict):
    """A linear bridge, fitted on the same stored features as the model: InfoNCE, AdamW, cosine decay."""

    width: Count = Field(256, le=65_536, description="Width of the shared space.")
    epochs: Count = 10
    batch_size: Count = 512
    lr: Positive = 3e-3
    weight_decay: NotNegative = 0.01


class OtherData(Strict):
    """Prepared data that the trained model is measured on beside those of the recipe."""

    path: str = Field(description="A folder that `renaissance data prepare` wrote.")
    tasks: dict[Name, JsonOptions] = Field(
        default_factory=dict,
        description="Tasks, with their options; default: all that are for such data and that the model can.",
    )
    splits: tuple[Name, ...] = Field((), strict=False, description="Default: all but those to train on.")


class Evaluation(Strict):
    """What is measured, on which splits, and how often."""

    tasks: dict[Name, JsonOptions] = Field(
        default_factory=dict, description="Tasks to measure beside the trained ones that have a score: their options."
    )
    splits: tuple[Name, ...] = Field((), strict=False, description="Default: every held-out split.")
    data: dict[Name, OtherData] = Field(
        default_factory=dict, description="Further data to measure the trained model on: probes, zero-shot, retrieval."
    )
    waive: tuple[str, ...] = Field(
        (),
        strict=False,
        description="Splits ('test', or 'data/test' of further data) that may share images with the training.",
    )
    primary: str | None = Field(None, description="The score that counts: 'split/task/metric'.")
    every: Count | None = Field(None, description="Updates between evaluations in training; null: only at the end.")
    validation: Count = Field(256, description="Training samples set aside for evaluations in training.")
    untrained: bool = Field(True, description="Measure the untrained model too.")
    blind: Literal["vision", "text"] | None = Field(
        None, description="Train a twin as well whose images (or texts) are those of other items, and measure it so."
    )
    shuffled: bool = Field(
        True, description="Measure the trained model also on the images, and on the texts, of other samples."
    )
    bridge: Bridge | None = Field(None, description="Fit a linear bridge on the same stored features, and measure it.")
    outcomes: bool = Field(
        False, description="Keep each score's values by unit (image, item) in outcomes.safetensors, for studies."
    )
    batch_size: Count = 64
