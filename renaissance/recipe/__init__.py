"""A recipe: everything that a run is made of, as data. The same recipe and seed give the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from renaissance.errors import SpecError
from renaissance.plain_yaml import parse_yaml
from renaissance.recipe.data import Data, ImagesData, MixtureData, PreparedData, StreamData, WorldData
from renaissance.recipe.distributed import Distributed
from renaissance.recipe.evaluation import Evaluation
from renaissance.recipe.freezing import Freezing
from renaissance.recipe.start import SavedStart
from renaissance.recipe.store import Store
from renaissance.recipe.training import Augmentation, BatchSize, Budget, Ema, Optimiser, Schedule, TaskUse
from renaissance.recipe.values import SKIP_BUDGET, Count, Name, OnBadSample, Share
from renaissance.shorthand import parse_spec
from renaissance.spec import OneTowerSpec, Strict, TwoTowerSpec, did_you_mean, explain, shown, validate_spec

BUILTIN_RECIPES = Path(__file__).parents[1] / "recipes"


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
    decoding: Literal["exact", "fast"] | None = Field(
        None, description="JPEG files exactly, or sooner and at 40 dB of it; null: as the saved model does, or exactly."
    )
    on_bad_sample: OnBadSample = Field("error", description="Skipped samples are counted, and printed.")
    skip_budget: Share = Field(SKIP_BUDGET, description="Largest share of the samples of a split that may be skipped.")
    batch: BatchSize = BatchSize()
    distributed: Distributed = Distributed()
    optimiser: Optimiser = Optimiser()
    budget: Budget = Budget(epochs=1)
    schedule: Schedule = Schedule()
    freezing: Freezing = Field(Freezing(), description="What is thawed and frozen in the training, beside the spec.")
    evaluation: Evaluation = Evaluation()
    store: Store | None = Field(
        None,
        description="Run what is frozen once over the data, and train from its stored outputs; true: as by default.",
        json_schema_extra=lambda schema: schema["anyOf"].insert(0, {"type": "boolean"}),  # type: ignore[union-attr]  # a union's schema
    )
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_checkpointing: bool = Field(
        False, description="Run blocks again in the backward pass in place of keeping what is inside: less memory."
    )
    checkpoint_every: Count = Field(500, description="Updates between checkpoints; there is one at the end too.")
    keep_checkpoints: Annotated[int, Field(ge=1, le=1000)] = Field(2, description="Newest checkpoints that are kept.")
    keep_best: Annotated[str, Field(pattern="^validation/[^/]+/.+$")] | None = Field(
        None, description="Keep the checkpoint with the highest of this score too: 'validation/task/metric'."
    )
    save_best: bool = Field(False, description="Save and measure the best checkpoint, and not the last weights.")
    ema: Ema | None = Field(None, description="Average the weights over updates; null: no average.")
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

    @field_validator("store", mode="before")
    @classmethod
    def _switched(cls, value: object) -> object:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _physics(self) -> Self:
        if sum(task.weight for task in self.tasks.values()) <= 0:
            raise ValueError("the weights of the tasks sum to nothing; give one of them a weight above 0")
        if self.budget.steps is not None and self.schedule.warmup(self.budget.steps) >= self.budget.steps:
            warmup = self.schedule.warmup(self.budget.steps)
            raise ValueError(f"the warm-up of {warmup} steps is not shorter than the training of {self.budget.steps}")
        if self.budget.samples is not None and self.budget.samples < self.batch.size:
            raise ValueError(
                f"budget.samples is {self.budget.samples}, which is no batch of {self.batch.size}; give more samples, "
                "or a smaller batch.size"
            )
        if not self.budget.counted and self.schedule.warmup_steps is not None:
            raise ValueError(
                "schedule.warmup_steps counts updates, and a budget of FLOPs or seconds holds as many as it does: set "
                "schedule.warmup_share"
            )
        if isinstance(self.data, WorldData) and self.batch.size > self.data.train:
            raise ValueError(f"a batch of {self.batch.size} cannot be formed of {self.data.train} training scenes")
        if self.store and isinstance(self.data, StreamData | MixtureData):
            raise ValueError(
                f"a store is made of samples that are all known, and not of a {self.data.kind}: leave it out"
            )
        if self.store and self.on_bad_sample == "skip":
            raise ValueError(
                "a store is built before the training, which would then form other batches than one that meets a bad "
                "sample in them: mend or leave out the bad rows and set on_bad_sample to 'error', or leave 'store' out"
            )
        if self.evaluation.blind and isinstance(self.data, StreamData | MixtureData):
            raise ValueError(
                f"evaluation.blind needs samples that are all known, and not a {self.data.kind}: leave it out"
            )
        if self.keep_best is not None and self.evaluation.every is None:
            raise ValueError("keep_best compares evaluations in training: set evaluation.every, or leave keep_best out")
        if self.save_best and self.keep_best is None:
            raise ValueError("save_best needs the score that counts: set keep_best, or leave save_best out")
        if self.store and self.augmentation.any and self.augmentation.views is None:
            raise ValueError(
                "a store holds so many views of each image as augmentation.views says: set it, or turn 'augmentation' "
                "or 'store' off"
            )
        if self.store and self.augmentation.any and self.evaluation.blind:
            raise ValueError("evaluation.blind pairs views and images that no store holds: turn 'augmentation' off")
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
