"""What a run trains on, and the splits that it is measured on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from renaissance.recipe.values import Count, Name, Positive
from renaissance.spec import Strict


class Columns(Strict):
    """Which columns hold what; what is not named is guessed, and shown."""

    image: str | None = Field(None, description="Path below the folder, or the encoded image itself.")
    caption: str | tuple[str, ...] | None = Field(None, description="Text, a list of texts, or several columns.")
    id: str | None = Field(None, description="Name of the sample; default: a column called id, else its path.")

    @field_validator("caption", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


def _tuples_of(value: object) -> object:
    """Turn the lists in a mapping, as YAML and JSON give them, into tuples."""
    if isinstance(value, dict):
        return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
    return value


class HoldOut(Strict):
    """Part of the samples set aside, whole groups at a time, drawn by the seed of the recipe's data.

    by "id": samples of one id (or image) stay together. by "family": captions that differ in one word, or share the
    part before a colon, stay together, so that no held-out caption is a word away from one that was trained on.
    """

    name: Name = Field(description="Name of the split that they make.")
    by: Literal["id", "family"]
    share: Annotated[float, Field(gt=0.0, lt=1.0)]
    where: dict[str, str | tuple[str, ...]] = Field(
        default_factory=dict, description="Hold out such samples only; the rest of their groups is not trained on."
    )

    @field_validator("where", mode="before")
    @classmethod
    def _tuples(cls, value: object) -> object:
        return _tuples_of(value)


class Split(Strict):
    """A named selection of samples, for evaluation."""

    where: dict[str, str | tuple[str, ...]] = Field(description="Column: the value, or values, that it must have.")
    seen: bool = Field(False, description="Keep only samples whose id is among the training samples.")

    @field_validator("where", mode="before")
    @classmethod
    def _tuples(cls, value: object) -> object:
        return _tuples_of(value)


class WorldData(Strict):
    """Drawn scenes with captions, generated from a seed."""

    kind: Literal["world"] = "world"
    train: Count = Field(2000, le=200_000, description="Scenes to train on.")
    test: Count = Field(500, le=50_000, description="Held-out scenes.")
    captions: Count = Field(5, le=20, description="Captions of each scene.")
    image_size: Count = Field(64, ge=16, le=512, description="Pixels a side.")
    seed: int = Field(0, ge=0, le=2**31)


class ImagesData(Strict):
    """An image folder with a CSV, TSV, JSONL or Parquet file of captions, or a Hugging Face `datasets` directory."""

    kind: Literal["images"] = "images"
    path: str | None = Field(None, description="The folder, or its caption file; `--data` sets it.")
    columns: Columns = Columns()
    train: Split | None = Field(None, description="Samples to train on; default: all that no other split holds.")
    hold_out: tuple[HoldOut, ...] = Field((HoldOut(name="test", by="id", share=0.1),), strict=False)
    splits: dict[Name, Split] = Field(default_factory=dict, description="Further splits to evaluate on.")
    seed: int = Field(0, ge=0, le=2**31, description="Draws the held-out samples.")


class PreparedData(Strict):
    """Data that `renaissance data prepare` wrote: images with captions, or items with labels."""

    kind: Literal["prepared"] = "prepared"
    path: str | None = Field(None, description="The folder; `--data` sets it.")
    train: Name | tuple[Name, ...] = Field(
        "train", description="The split to train on, or several: [train, restval] is the usual training set of COCO."
    )
    splits: tuple[Name, ...] = Field((), strict=False, description="Splits to evaluate on; default: all others.")
    seed: int = Field(0, ge=0, le=2**31, description="Draws the samples set aside for evaluation in training.")

    @field_validator("train", mode="before")
    @classmethod
    def _tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("train")
    @classmethod
    def _distinct(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value or (len(set(value)) < len(value) and not isinstance(value, str)):
            raise ValueError("name at least one split to train on, and none twice")
        return value

    @property
    def trained(self) -> tuple[str, ...]:
        """The splits to train on."""
        return (self.train,) if isinstance(self.train, str) else self.train


HeldData = Annotated[WorldData | ImagesData | PreparedData, Field(discriminator="kind")]


class StreamSplit(Strict):
    """A split to evaluate on beside a stream: one of other data, or another split of what is streamed."""

    data: HeldData | None = Field(None, description="Where it is; null: at the source of the stream.")
    split: Name | None = Field(None, description="Its name there; default: the name that it has here.")
    samples: Count | None = Field(None, description="At most so many; default: all, and 5,000 of a stream.")


class StreamData(Strict):
    """Images with captions that are read in order while training, and never all held: shards of any number and size."""

    kind: Literal["stream"] = "stream"
    source: str | None = Field(
        None,
        min_length=1,
        max_length=4000,
        description="'hf:org/name', a folder of webdataset shards, of a Hub dataset or of `datasets`, or 'x-*.tar'.",
    )
    config: str | None = Field(None, description="Configuration of a Hub dataset.")
    split: Name = Field("train", description="The split to train on.")
    revision: str | None = Field(None, description="Commit, tag or branch of a Hub dataset.")
    columns: Columns = Columns()
    shuffle_buffer: Count = Field(1000, le=2**24, description="Samples held at a time; 1: only shards are shuffled.")
    interleave: Annotated[int, Field(ge=1, le=64)] | None = Field(
        None, description="Places read at a time, a divisor of a micro-batch; default: the greatest one up to 8."
    )
    splits: dict[Name, StreamSplit] = Field(default_factory=dict, description="Splits to evaluate on.")

    @model_validator(mode="before")
    @classmethod
    def _held_out(cls, value: object) -> object:
        if isinstance(value, dict) and "hold_out" in value:
            raise ValueError(
                "'hold_out' draws from all samples, and a stream is never read whole: name other data in 'splits'"
            )
        return value


class MixturePart(Strict):
    """One of the data of a mixture."""

    name: Name | None = Field(None, description="Its splits become 'name.split'; default: 'part1', 'part2' and so on.")
    data: Annotated[WorldData | ImagesData | PreparedData | StreamData, Field(discriminator="kind")]
    weight: Positive = Field(1.0, description="Its share of the training samples, relative to the other weights.")


class MixtureData(Strict):
    """Several data in one training; an epoch is one pass through the first part."""

    kind: Literal["mixture"] = "mixture"
    parts: tuple[MixturePart, ...] = Field(strict=False, min_length=2, max_length=100)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each part."""
        return tuple(part.name or f"part{number}" for number, part in enumerate(self.parts, start=1))

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        repeated = next((name for name in self.names if self.names.count(name) > 1), None)
        if repeated is not None:
            raise ValueError(f"two parts are called '{repeated}'; give each a 'name' of its own")
        return self


Data = Annotated[WorldData | ImagesData | PreparedData | StreamData | MixtureData, Field(discriminator="kind")]
