"""A recipe: everything that a run is made of, as data. The same recipe and seed give the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from renaissance.errors import SpecError
from renaissance.plain_yaml import parse_yaml
from renaissance.shorthand import parse_spec
from renaissance.spec import (
    JsonOptions,
    OneTowerSpec,
    Strict,
    TwoTowerSpec,
    did_you_mean,
    explain,
    shown,
    validate_spec,
)

BUILTIN_RECIPES = Path(__file__).parent / "recipes"

Count = Annotated[int, Field(ge=1, le=2**40)]
OnBadSample = Literal["error", "skip"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, le=1e9)]
NotNegative = Annotated[float, Field(ge=0.0, le=1e9)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-:]*$", max_length=100)]


# --- where a model starts ---------------------------------------------------------------------------------------------


class Surgery(Strict):
    """What a start from a saved model may change; whatever differs without being named here is an error."""

    drop_tasks: tuple[Name, ...] = Field((), strict=False, description="Heads that are left behind.")
    add_tasks: tuple[Name, ...] = Field((), strict=False, description="Heads that are new.")
    image_size: Annotated[int, Field(ge=1, le=65_536)] | None = Field(
        None, description="Another side of the images in pixels; position tables are interpolated."
    )
    max_tokens: Annotated[int, Field(ge=3, le=1_000_000)] | None = Field(
        None, description="Another longest text in tokens; position tables are cut off, or continued by new rows."
    )


class SavedStart(Strict):
    """Start from a model that was saved: a folder, or a repository of the Hub."""

    model: str = Field(
        min_length=1, max_length=400, description="A model folder, a run folder, or 'org/name[@commit]'."
    )
    surgery: Surgery = Surgery()
    trust: tuple[str, ...] = Field((), strict=False, description="Plugins that a model of the Hub may use, by name.")


# --- data -----------------------------------------------------------------------------------------------------------


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
    train: Name = Field("train", description="The split to train on.")
    splits: tuple[Name, ...] = Field((), strict=False, description="Splits to evaluate on; default: all others.")
    seed: int = Field(0, ge=0, le=2**31, description="Draws the samples set aside for evaluation in training.")


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


# --- training ------------------------------------------------------------------------------------------------------


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


class Bridge(Strict):
    """A linear bridge, fitted on the same stored features as the model: InfoNCE, AdamW, cosine decay."""

    width: Count = Field(256, le=65_536, description="Width of the shared space.")
    epochs: Count = 10
    batch_size: Count = 512
    lr: Positive = 3e-3
    weight_decay: NotNegative = 0.01


class Evaluation(Strict):
    """What is measured, on which splits, and how often."""

    tasks: dict[Name, JsonOptions] = Field(
        default_factory=dict, description="Tasks to measure beside the trained ones that have a score: their options."
    )
    splits: tuple[Name, ...] = Field((), strict=False, description="Default: every held-out split.")
    primary: str | None = Field(None, description="The score that counts: 'split/task/metric'.")
    every: Count | None = Field(None, description="Updates between evaluations in training; null: only at the end.")
    validation: Count = Field(256, description="Training samples set aside for evaluations in training.")
    untrained: bool = Field(True, description="Measure the untrained model too.")
    blind: Literal["vision", "text"] | None = Field(
        None, description="Train a twin as well whose images (or texts) are those of other items, and measure it so."
    )
    bridge: Bridge | None = Field(None, description="Fit a linear bridge on the same stored features, and measure it.")
    batch_size: Count = 64


class Recipe(Strict):
    """A run: where the model starts, tasks, data, optimiser, budget, schedule, seed."""

    name: Name = "run"
    start: TwoTowerSpec | OneTowerSpec | SavedStart = Field(
        description="Shorthand, a spec, or a saved model.",
        json_schema_extra=lambda schema: schema["anyOf"].insert(0, {"type": "string"}),  # type: ignore[union-attr]  # a union's schema
    )
    tasks: dict[Name, TaskUse] = Field(min_length=1, description="What to train for.")
    data: Data = WorldData()
    augmentation: Augmentation = Augmentation()
    on_bad_sample: OnBadSample = Field("error", description="Skipped samples are counted, and printed.")
    batch: BatchSize = BatchSize()
    optimiser: Optimiser = Optimiser()
    budget: Budget = Budget(epochs=1)
    schedule: Schedule = Schedule()
    evaluation: Evaluation = Evaluation()
    store: bool = Field(False, description="Run frozen towers once over the data, and train from their stored outputs.")
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = Field(
        False, description="Run blocks again in the backward pass in place of keeping what is inside: less memory."
    )
    checkpoint_every: Count = Field(500, description="Updates between checkpoints; there is one at the end too.")
    keep_checkpoints: Annotated[int, Field(ge=1, le=1000)] = 2
    workers: Annotated[int, Field(ge=0, le=128)] = Field(0, description="Loader processes; they change no result.")
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = Field((), strict=False)
    seed: int = Field(0, ge=0, le=2**31)

    @field_validator("start", mode="before")
    @classmethod
    def _parsed(cls, value: object) -> object:
        if isinstance(value, str):
            return _within_pydantic(lambda: parse_spec(value))
        if isinstance(value, dict):
            return _within_pydantic(lambda: _saved_start(value) if "model" in value else validate_spec(value))
        if not isinstance(value, TwoTowerSpec | OneTowerSpec | SavedStart):
            raise ValueError("give a line of shorthand, a spec, or {'model': folder or 'org/name'}")
        return value

    @model_validator(mode="after")
    def _physics(self) -> Self:
        if sum(task.weight for task in self.tasks.values()) <= 0:
            raise ValueError("the weights of the tasks sum to nothing; give one of them a weight above 0")
        if self.budget.steps is not None and self.schedule.warmup(self.budget.steps) >= self.budget.steps:
            warmup = self.schedule.warmup(self.budget.steps)
            raise ValueError(f"the warm-up of {warmup} steps is not shorter than the training of {self.budget.steps}")
        if isinstance(self.data, WorldData) and self.batch.size > self.data.train:
            raise ValueError(f"a batch of {self.batch.size} cannot be formed of {self.data.train} training scenes")
        if self.store and isinstance(self.data, StreamData | MixtureData):
            raise ValueError(
                f"a store is made of samples that are all known, and not of a {self.data.kind}: leave it out"
            )
        if self.evaluation.blind and isinstance(self.data, StreamData | MixtureData):
            raise ValueError(
                f"evaluation.blind needs samples that are all known, and not a {self.data.kind}: leave it out"
            )
        if self.store and self.augmentation.any:
            raise ValueError("a store holds one view of each image: turn 'augmentation' off, or 'store'")
        return self

    def dump(self) -> dict[str, Any]:
        """Return the recipe as JSON-able data from which `validate_recipe` gives it back."""
        return self.model_dump(mode="json")


def _saved_start(value: object) -> SavedStart:
    try:
        return SavedStart.model_validate(value)
    except ValidationError as error:
        raise SpecError(explain(error, SavedStart.model_json_schema(), what="saved model")) from None


def _within_pydantic(parse: Any) -> object:
    try:
        return parse()
    except SpecError as error:
        raise ValueError(str(error).removesuffix(".")) from None


def validate_recipe(data: object) -> Recipe:
    """Return the recipe that JSON-like `data` describes.

    Raises:
        SpecError: with the path of the first fault and the nearest valid key.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise SpecError(explain(error, Recipe.model_json_schema(), what="recipe")) from None
    except ValueError as error:  # whole numbers of thousands of digits, before pydantic can say where
        raise SpecError(f"recipe: {shown(error)}.") from None


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from a YAML file.

    Raises:
        SpecError: the file is missing, too large, not plain YAML, or not a recipe.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SpecError(f"The recipe '{shown(path)}' cannot be read: {error.strerror}.") from None
    return validate_recipe(parse_yaml(raw, what=path.name))


def as_recipe(
    recipe: Recipe | Mapping[str, Any] | str | Path, *, data: str | Path | None = None, seed: int | None = None
) -> Recipe:
    """Return the recipe that is meant, with its data folder and seed replaced where they are given.

    Raises:
        SpecError: there is no such recipe, or it is wrong.
    """
    if isinstance(recipe, str | Path):
        found = load_recipe(_recipe_file(recipe))
    else:
        found = recipe if isinstance(recipe, Recipe) else validate_recipe(dict(recipe))
    changes = found.dump()
    if seed is not None:
        changes["seed"] = seed
    if data is not None:
        changes["data"] = _with_source(found.data, str(data))
    return validate_recipe(changes)


def _with_source(data: Data, source: str) -> dict[str, Any]:
    """Return the data section with another place; data that have none become a folder of images."""
    if isinstance(data, StreamData):
        return {**data.model_dump(mode="json"), "source": source}
    section = data.model_dump(mode="json") if isinstance(data, ImagesData | PreparedData) else {"kind": "images"}
    return {**section, "path": source}


def _recipe_file(recipe: str | Path) -> Path:
    """Return the YAML file of a recipe: a path, or the name of one that ships with renaissance."""
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        return path
    shipped = BUILTIN_RECIPES / f"{recipe}.yaml"
    if shipped.is_file():
        return shipped
    names = sorted(file.stem for file in BUILTIN_RECIPES.glob("*.yaml"))
    hint = did_you_mean(str(recipe), names)
    raise SpecError(f"There is no recipe '{shown(recipe)}': give a .yaml file, or one of: {', '.join(names)}.{hint}")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe."""
    return Recipe.model_json_schema()
