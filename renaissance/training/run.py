"""`renaissance.run`: from a recipe to a run folder with a trained, measured and saved model."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration, broadcast_object_list

from renaissance.assemble import Assembly
from renaissance.container import save
from renaissance.data.collate import Collator
from renaissance.data.load import load_data
from renaissance.data.loader import loader
from renaissance.data.records import DataSet, Record
from renaissance.data.sampling import BatchPlan
from renaissance.errors import DataError, MissingPackageError, SpecError
from renaissance.evaluation.evaluate import SplitScores, evaluate_split, usable
from renaissance.features.frozen import Stores, frozen_stores
from renaissance.progress import Progress, Silent
from renaissance.recipe import ImagesData, Recipe, load_recipe, validate_recipe
from renaissance.registry import Registry, default_registry
from renaissance.spec import did_you_mean, shown
from renaissance.toolkit.devices import cache_folder
from renaissance.training.bridge import measure_bridge
from renaissance.training.checkpoint import newest_checkpoint, write_atomically
from renaissance.training.folder import create_folder, default_folder, resume_folder, set_state
from renaissance.training.loop import Batches, Trained, train
from renaissance.training.start import start

BUILTIN_RECIPES = Path(__file__).parent.parent / "recipes"


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: its folder, its recipe, and what is in its scores.json."""

    folder: Path
    recipe: Recipe
    scores: Mapping[str, Any]

    @property
    def model_folder(self) -> Path:
        """Where the trained model is saved; `renaissance.from_pretrained` takes it."""
        return self.folder / "model"


def run(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    out: str | Path | None = None,
    data: str | Path | None = None,
    seed: int | None = None,
    resume: bool = False,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> Run:
    """Pretrain or fine-tune, evaluate and save what a recipe says.

    recipe: a `Recipe`, its data, a YAML file, or the name of a built-in one ("demo"). data: the folder of images and
    captions in place of the recipe's. resume: continue the run in `out` from its newest whole checkpoint.

    Raises:
        SpecError: the recipe cannot be run as it is; nothing was written.
        DataError, SampleError: the data are not what the recipe says.
        OutputError: `out` is taken.
        NonFiniteError: training diverged; the last checkpoint is kept.
    """
    chosen = as_recipe(recipe, data=data, seed=seed)
    job = _Job(
        chosen, Path(out) if out is not None else None, resume, registry or default_registry(), progress or Silent()
    )
    return job.run()


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
        section = changes["data"] if isinstance(found.data, ImagesData) else {"kind": "images"}
        changes["data"] = {**section, "path": str(data)}
    return validate_recipe(changes)


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


@dataclass(slots=True)
class _Job:
    """One run while it goes on."""

    recipe: Recipe
    out: Path | None
    resume: bool
    registry: Registry
    progress: Progress
    clock: Clock = field(default_factory=lambda: Clock())

    def run(self) -> Run:
        """Check everything that can be checked, then make the folder, train, measure and save."""
        with self.clock("data"):
            data = self._data()
        with self.clock("build"):
            assembly, surgery = start(self.recipe, self.registry)
        accelerator = self._accelerator(assembly)
        plan = self._batch_plan(len(data.train), accelerator)
        steps = self._steps(plan)
        folder, checkpoint = self._folder(accelerator)
        self._trackers(folder, accelerator)
        for line in (*data.facts, *data.skipped):
            self.progress.say(line)
        assembly.to(accelerator.device)
        with self.clock("store"):
            stores = self._stores(assembly, data, accelerator)
        measure = partial(self._measure, assembly, stores, accelerator)
        found: dict[str, list[SplitScores]] = {}
        if self.recipe.evaluation.untrained:
            found["untrained"] = (
                measure(data.splits) if checkpoint is None else self._untrained(stores, data, accelerator)
            )
        batches = self._batches(assembly, data, plan, stores)
        with self.clock("training"):
            trained = train(
                assembly, self.recipe, batches, steps=steps, folder=folder, accelerator=accelerator,
                progress=self.progress, start=checkpoint, evaluate=self._validate(measure, data, folder, accelerator),
            )  # fmt: skip
        found["trained"] = measure(data.splits)
        if self.recipe.evaluation.bridge is not None:
            with self.clock("bridge"):
                found["bridge"] = measure_bridge(assembly, self.recipe, data, stores, self.progress)
        results = self._results(found, trained, data, surgery)
        if accelerator.is_main_process:
            self._write(assembly, folder, results)
        accelerator.wait_for_everyone()
        accelerator.end_training()
        return Run(folder, self.recipe, results)

    # --- before anything is written -----------------------------------------------------------------------------

    def _data(self) -> DataSet:
        """Load the data; keep the splits that are measured, and the samples that can be used."""
        recipe = self.recipe
        validation = recipe.evaluation.validation if recipe.evaluation.every else 0
        loaded = load_data(recipe.data, cache=cache_folder(), on_bad_sample=recipe.on_bad_sample, validation=validation)
        names = recipe.evaluation.splits or tuple(loaded.splits)
        missing = [name for name in names if name not in loaded.splits]
        if missing:
            known = ", ".join(loaded.splits) or "none"
            raise DataError(f"The data have no split '{shown(missing[0])}' to evaluate on; they have: {known}.")
        train_records, bad = usable(loaded.train, recipe.on_bad_sample) if recipe.store else (loaded.train, ())
        validation_records, worse = usable(loaded.validation, recipe.on_bad_sample)
        splits: dict[str, tuple[Record, ...]] = {}
        skipped = [*loaded.skipped, *bad, *worse]
        for name in names:
            records, lines = usable(loaded.splits[name], recipe.on_bad_sample)
            splits[name] = tuple(records)
            skipped += lines
        return DataSet(tuple(train_records), tuple(validation_records), splits, loaded.facts, tuple(skipped))

    def _accelerator(self, assembly: Assembly) -> Accelerator:
        for tracker in self.recipe.trackers:
            if importlib.util.find_spec(tracker) is None:
                raise MissingPackageError(f"The tracker '{tracker}' is not installed. Try: pip install {tracker}")
        outputs = {output for name in self.recipe.tasks for output in assembly.plan.tasks[name].entry.outputs}
        unused = "pooled" not in outputs and bool(assembly.encoder.outputs)
        return Accelerator(
            cpu=not torch.accelerator.is_available(),
            log_with=list(self.recipe.trackers) or None,
            project_config=ProjectConfiguration(logging_dir="."),  # the run's folder, once there is one
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused)],
        )

    def _batch_plan(self, count: int, accelerator: Accelerator) -> BatchPlan:
        return BatchPlan(
            count=count,
            batch_size=self.recipe.batch.size,
            world_size=accelerator.num_processes,
            rank=accelerator.process_index,
            seed=self.recipe.seed,
            accumulation=self.recipe.batch.accumulation,
        )

    def _steps(self, plan: BatchPlan) -> int:
        budget, schedule = self.recipe.budget, self.recipe.schedule
        steps = budget.steps or (budget.epochs or 1) * plan.steps_per_epoch
        if schedule.warmup(steps) >= steps:
            raise SpecError(
                f"The warm-up of {schedule.warmup(steps)} steps is not shorter than the training of {steps}."
            )
        return steps

    def _folder(self, accelerator: Accelerator) -> tuple[Path, Path | None]:
        """Return the run's folder, and the checkpoint from which it goes on."""
        folder = self.out
        if self.resume:
            folder = folder or default_folder(self.recipe)
            resume_folder(self.recipe, folder)
            checkpoint, faults = newest_checkpoint(folder / "checkpoints")
            for fault in faults:
                self.progress.say(f"Passed over a checkpoint: {fault}.")
            return folder, checkpoint
        made: list[Path | None] = [create_folder(self.recipe, folder) if accelerator.is_main_process else None]
        broadcast_object_list(made)
        return cast(Path, made[0]), None

    def _trackers(self, folder: Path, accelerator: Accelerator) -> None:
        if self.recipe.trackers:
            accelerator.project_configuration.logging_dir = str(folder)
            accelerator.init_trackers("renaissance", config={"name": self.recipe.name, "seed": self.recipe.seed})

    # --- the work -----------------------------------------------------------------------------------------------

    def _stores(self, assembly: Assembly, data: DataSet, accelerator: Accelerator) -> Stores:
        if not self.recipe.store:
            return Stores()
        assembly.eval()
        records = [*data.train, *data.validation, *(record for split in data.splits.values() for record in split)]
        with accelerator.main_process_first():  # one process builds, the others open what it built
            return frozen_stores(assembly.encoder, records, cache_folder() / "features", self.progress)

    def _batches(self, assembly: Assembly, data: DataSet, plan: BatchPlan, stores: Stores) -> Batches:
        encoder: Any = assembly.encoder
        collator = Collator(
            None if stores.vision else encoder.vision.processor,
            encoder.text.processor,
            seed=self.recipe.seed,
            augmentation=self.recipe.augmentation,
            on_bad_sample=self.recipe.on_bad_sample,
            stored_vision=stores.vision,
            stored_text=stores.text,
        )
        return lambda first, count: loader(
            data.train, plan, collator, start_step=first, steps=count, workers=self.recipe.workers
        )

    def _measure(
        self, assembly: Assembly, stores: Stores, accelerator: Accelerator, splits: Mapping[str, Sequence[Record]]
    ) -> list[SplitScores]:
        """Measure on the main process, while the others wait."""
        found: list[SplitScores] = []
        with self.clock("evaluation"):
            if accelerator.is_main_process:
                size = self.recipe.evaluation.batch_size
                found = [
                    evaluate_split(assembly, name, records, stores=stores, batch_size=size, progress=self.progress)
                    for name, records in splits.items()
                ]
            accelerator.wait_for_everyone()
        return found

    def _untrained(self, stores: Stores, data: DataSet, accelerator: Accelerator) -> list[SplitScores]:
        """Measure the untrained model of a run that goes on: it is built once more, from the same seed."""
        assembly, _ = start(self.recipe, self.registry)
        return self._measure(assembly.to(accelerator.device), stores, accelerator, data.splits)

    def _validate(
        self,
        measure: Callable[[Mapping[str, Sequence[Record]]], list[SplitScores]],
        data: DataSet,
        folder: Path,
        accelerator: Accelerator,
    ) -> Callable[[int], None] | None:
        """Return what measures the samples set aside, and notes it in metrics.jsonl."""
        if not self.recipe.evaluation.every:
            return None

        def validate(step: int) -> None:
            for scores in measure({"validation": data.validation}):
                figures = {f"validation/{row['task']}/{row['name']}": row["value"] for row in scores.rows()}
                with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": step, **figures}) + "\n")
                accelerator.log(figures, step=step)

        return validate

    # --- the results --------------------------------------------------------------------------------------------

    def _results(
        self,
        found: Mapping[str, list[SplitScores]],
        trained: Trained,
        data: DataSet,
        surgery: Mapping[str, Sequence[str]],
    ) -> dict[str, Any]:
        """Return what scores.json holds."""
        sizes = {
            scores.split: {
                "images": scores.images,
                "captions": scores.captions,
                "distinct_texts": scores.distinct_texts,
            }
            for scores in found["trained"]
        }
        return {
            "format": 1,
            "name": self.recipe.name,
            "seed": self.recipe.seed,
            "primary": self.recipe.evaluation.primary,
            "training": {"samples": len(data.train), "updates": trained.steps, "batch_size": self.recipe.batch.size},
            "splits": sizes,
            "scores": [
                {"model": model, **row} for model, splits in found.items() for scores in splits for row in scores.rows()
            ],
            "skipped": [*data.skipped, *trained.skipped],
            "surgery": {what: len(names) for what, names in surgery.items()},
            "seconds": {name: round(seconds, 3) for name, seconds in self.clock.seconds.items()},
        }

    def _write(self, assembly: Assembly, folder: Path, results: Mapping[str, Any]) -> None:
        text = json.dumps(results, indent=1) + "\n"
        write_atomically(folder / "scores.json", text)
        save(assembly, folder / "model", extra={"scores.json": text.encode()})
        set_state(folder, "done")


class Clock:
    """Wall seconds by phase; time inside another phase counts for the inner one alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = 0.0

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count what is done inside for `phase`."""
        outer, self._inner = self._inner, 0.0
        began = time.perf_counter()
        try:
            yield
        finally:
            whole = time.perf_counter() - began
            self.seconds[phase] = self.seconds.get(phase, 0.0) + whole - self._inner
            self._inner = outer + whole
