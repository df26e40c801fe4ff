"""`renaissance.run`: from a recipe to a run folder with a trained, measured and saved model."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, ProjectConfiguration

from renaissance.assemble import Assembly
from renaissance.container import save
from renaissance.data.blind import Blindfold, blinded
from renaissance.data.cache import cache_folder
from renaissance.data.collate import Collator
from renaissance.data.collate_items import ItemCollator, collator_of
from renaissance.data.load import samples_digest
from renaissance.data.loader import loader
from renaissance.data.records import DataSet
from renaissance.data.sampling import BatchPlan
from renaissance.durable import write_atomically
from renaissance.errors import MissingPackageError, SpecError
from renaissance.evaluation.choosing import Measure
from renaissance.evaluation.evaluate import SplitScores, evaluate_items, evaluate_split
from renaissance.features.frozen import Stores, check_storable, frozen_stores
from renaissance.progress import Progress, Silent
from renaissance.recipe import Recipe, as_recipe
from renaissance.recipe.start import SavedStart
from renaissance.registry import Registry, default_registry
from renaissance.training.bridge import check_bridge, measure_bridge
from renaissance.training.checkpoint import newest_checkpoint, remove_partial
from renaissance.training.clock import Clock
from renaissance.training.folder import check_same, choose_folder, create_folder, set_state
from renaissance.training.loop import Batches, Trained, train
from renaissance.training.optimiser import check_anything_trains
from renaissance.training.samples import select_samples
from renaissance.training.start import check_primary, check_primary_metric, measured_tasks, start
from renaissance.training.train_step import check_trains_together
from renaissance.uses import TaskSelection, reads_items, select_tasks

# One process builds stores and measures while the others wait.
LONGEST_WAIT = timedelta(hours=24)


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
    known = registry or default_registry()
    place = choose_folder(chosen, Path(out) if out is not None else None, resume=resume)
    tasks = select_tasks(chosen, known)
    return _Job(chosen, tasks.named(chosen), tasks, place, resume, known, progress or Silent()).run()


@dataclass(slots=True)
class _Job:
    """One run while it goes on. `written` is the recipe as given, `recipe` the same with the names of entries."""

    written: Recipe
    recipe: Recipe
    tasks: TaskSelection
    folder: Path
    resume: bool
    registry: Registry
    progress: Progress
    clock: Clock = field(default_factory=Clock)

    @property
    def items(self) -> bool:
        """Whether the tasks are on items, and not on images with captions."""
        return reads_items(self.tasks, self.registry)

    def run(self) -> Run:
        """Check everything that can be checked, then make the folder, train, measure and save."""
        with self.clock("data"):
            data = select_samples(self.recipe, items=self.items)
        with self.clock("build"):
            assembly, surgery = start(self.recipe, self.tasks, self.registry, data.train)
        accelerator = self._accelerator()
        plan = self._batch_plan(len(data.train), accelerator)
        steps = self._steps(plan)
        self._check(assembly, data)
        checkpoint = self._open(accelerator)
        for line in (*data.facts, *data.skipped):
            self.progress.say(line)
        assembly.to(accelerator.device)
        with self.clock("store"):
            stores = self._stores(assembly, data, accelerator)
        found: dict[str, list[SplitScores]] = {}
        if self.recipe.evaluation.untrained:
            found["untrained"] = self._untrained(assembly, data, stores, accelerator, started=checkpoint is not None)
            check_primary_metric(self.recipe, found["untrained"])
        with self.clock("training"):
            trained = self._train(assembly, data, plan, steps, stores, accelerator, checkpoint)
        found["trained"] = self._measure(assembly, stores, accelerator, data.splits)
        if self.recipe.evaluation.blind is not None:
            found["blind"] = self._blind(data, plan, steps, stores)
        if self.recipe.evaluation.bridge is not None:
            with self.clock("bridge"):
                found["bridge"] = measure_bridge(self.recipe, data, stores, self.progress)
        results = self._results(found, trained, data, surgery)
        if accelerator.is_main_process:
            self._write(assembly, results, surgery)
        accelerator.wait_for_everyone()
        for tracker in accelerator.trackers:  # `end_training` would take the process group from the next run
            tracker.finish()
        check_primary_metric(self.recipe, found["trained"])
        return Run(self.folder, self.written, results)

    # --- before anything is written -----------------------------------------------------------------------------

    def _check(self, assembly: Assembly, data: DataSet) -> None:
        """Refuse what would fail only after the training.

        Raises:
            SpecError: naming what cannot be.
        """
        check_anything_trains(assembly)
        check_trains_together(assembly, self.tasks.trained)
        check_primary(self.recipe, assembly.plan, data.splits)
        check_bridge(assembly, self.recipe)
        self._check_blind(data)
        if self.recipe.store:
            check_storable(assembly.encoder)
            if self.items:
                raise SpecError("A store holds images with captions, and these tasks are on items; leave 'store' out.")
        if self.recipe.evaluation.every and not measured_tasks(assembly.plan):
            raise SpecError("None of the tasks has a score, so evaluation.every measures nothing; leave it out.")

    def _check_blind(self, data: DataSet) -> None:
        blind = self.recipe.evaluation.blind
        if blind is None:
            return
        if not self.items:
            raise SpecError(
                "evaluation.blind is for tasks on items with labels, and these are on captions; leave it out."
            )
        for split in (data.held, *data.splits.values()):
            Blindfold(blind, split, self.recipe.seed)(split[0])

    def _accelerator(self) -> Accelerator:
        for tracker in self.recipe.trackers:
            if importlib.util.find_spec(tracker) is None:
                raise MissingPackageError(f"The tracker '{tracker}' is not installed. Try: pip install {tracker}")
        return Accelerator(
            cpu=not torch.accelerator.is_available(),
            log_with=list(self.recipe.trackers) or None,
            project_config=ProjectConfiguration(logging_dir=str(self.folder)),
            # which parameters a step uses depends on the tasks' outputs and on how a tower pools
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=True),
                InitProcessGroupKwargs(timeout=LONGEST_WAIT),
            ],
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
            warmup = schedule.warmup(steps)
            raise SpecError(f"The warm-up of {warmup} steps is not shorter than the training of {steps}; shorten it.")
        return steps

    def _open(self, accelerator: Accelerator) -> Path | None:
        """Make the run's folder, or return the checkpoint from which it goes on."""
        checkpoint = None
        if self.resume:
            check_same(self.written, self.folder)
            if accelerator.is_main_process:
                remove_partial(self.folder / "checkpoints")
            checkpoint, faults = newest_checkpoint(self.folder / "checkpoints")
            for fault in faults:
                self.progress.say(f"Passed over a checkpoint: {fault}.")
        elif accelerator.is_main_process:
            create_folder(self.written, self.folder)
        accelerator.wait_for_everyone()
        if self.recipe.trackers:
            accelerator.init_trackers("renaissance", config={"name": self.recipe.name, "seed": self.recipe.seed})
        return checkpoint

    # --- the work -----------------------------------------------------------------------------------------------

    def _stores(self, assembly: Assembly, data: DataSet, accelerator: Accelerator) -> Stores:
        if not self.recipe.store:
            return Stores()
        assembly.eval()
        records = [*data.train, *data.validation, *(record for split in data.splits.values() for record in split)]
        with accelerator.main_process_first():  # one process builds, the others open what it built
            return frozen_stores(assembly.encoder, records, cache_folder() / "features", self.progress)

    def _train(
        self,
        assembly: Assembly,
        data: DataSet,
        plan: BatchPlan,
        steps: int,
        stores: Stores,
        accelerator: Accelerator,
        checkpoint: Path | None,
    ) -> Trained:
        return train(
            assembly,
            self.recipe,
            self._batches(data, plan, self._collator(assembly, stores)),
            steps=steps,
            folder=self.folder,
            accelerator=accelerator,
            progress=self.progress,
            identity=_identity(data, steps),
            start=checkpoint,
            evaluate=self._validate(assembly, data, stores, accelerator),
        )

    def _blind(self, data: DataSet, plan: BatchPlan, steps: int, stores: Stores) -> list[SplitScores]:
        """Train a twin from the same start to which one modality tells nothing, and measure it in the same way."""
        blind, folder = self.recipe.evaluation.blind, self.folder / "blind"
        assert blind is not None, "`run` asks"
        accelerator = self._accelerator()  # without trackers: those of the run are not for the twin
        twin = start(self.recipe, self.tasks, self.registry, data.train)[0].to(accelerator.device)
        checkpoint = newest_checkpoint(folder / "checkpoints")[0] if self.resume else None
        if accelerator.is_main_process:
            folder.mkdir(exist_ok=True)
            remove_partial(folder / "checkpoints")
        accelerator.wait_for_everyone()
        collator = self._collator(twin, stores)
        assert isinstance(collator, ItemCollator), "`_check_blind` sees to it"
        batches = self._batches(data, plan, replace(collator, blindfold=Blindfold(blind, data.held, self.recipe.seed)))
        with self.clock("blind"):
            train(
                twin, self.recipe, batches, steps=steps, folder=folder, accelerator=accelerator,
                progress=self.progress, identity=_identity(data, steps), start=checkpoint,
            )  # fmt: skip
        splits = {name: blinded(items, blind, self.recipe.seed) for name, items in data.splits.items()}
        return self._measure(twin, stores, accelerator, splits)

    def _batches(self, data: DataSet, plan: BatchPlan, collator: Collator | ItemCollator) -> Batches:
        return lambda first, count: loader(
            data.train, plan, collator, start_step=first, steps=count, workers=self.recipe.workers
        )

    def _collator(self, assembly: Assembly, stores: Stores) -> Collator | ItemCollator:
        encoder: Any = assembly.encoder
        how: dict[str, Any] = {
            "seed": self.recipe.seed,
            "augmentation": self.recipe.augmentation,
            "on_bad_sample": self.recipe.on_bad_sample,
        }
        if self.items:
            trained: dict[str, Any] = {name: assembly.tasks[name] for name in self.tasks.trained}
            return collator_of(trained, encoder.vision.processor, encoder.text.processor, **how)
        return Collator(
            None if stores.vision else encoder.vision.processor,
            encoder.text.processor,
            stored_vision=stores.vision,
            stored_text=stores.text,
            **how,
        )

    def _measure(
        self, assembly: Assembly, stores: Stores, accelerator: Accelerator, splits: Mapping[str, Sequence[Any]]
    ) -> list[SplitScores]:
        """Measure on the main process, while the others wait."""
        able = assembly.plan.tasks
        tasks = {name: Measure(able[name].entry, assembly.tasks[name]) for name in measured_tasks(assembly.plan)}
        found: list[SplitScores] = []
        with self.clock("evaluation"):
            if accelerator.is_main_process and tasks and self.items:
                found = [evaluate_items(assembly, name, items, tasks, self.progress) for name, items in splits.items()]
            elif accelerator.is_main_process and tasks:
                measure = partial(evaluate_split, assembly, stores=stores, progress=self.progress)
                size = self.recipe.evaluation.batch_size
                found = [measure(name, records, tasks, batch_size=size) for name, records in splits.items()]
            accelerator.wait_for_everyone()
        return found

    def _untrained(
        self, assembly: Assembly, data: DataSet, stores: Stores, accelerator: Accelerator, *, started: bool
    ) -> list[SplitScores]:
        """Measure the model before training; for a run that goes on it is built once more, from the same seed."""
        if started:
            assembly = start(self.recipe, self.tasks, self.registry, data.train)[0].to(accelerator.device)
        return self._measure(assembly, stores, accelerator, data.splits)

    def _validate(
        self, assembly: Assembly, data: DataSet, stores: Stores, accelerator: Accelerator
    ) -> Callable[[int], None] | None:
        """Return what measures the samples set aside, and notes it in metrics.jsonl."""
        if not self.recipe.evaluation.every:
            return None

        def validate(step: int) -> None:
            for scores in self._measure(assembly, stores, accelerator, {"validation": data.validation}):
                figures = {f"validation/{row['task']}/{row['name']}": row["value"] for row in scores.rows()}
                with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
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
        seconds = {**self.clock.seconds, "training": trained.seconds}
        models = [(model, scores) for model, splits in found.items() for scores in splits]
        return {
            "format": 1,
            "name": self.recipe.name,
            "seed": self.recipe.seed,
            "primary": self.recipe.evaluation.primary,
            "training": {"samples": len(data.train), "updates": trained.steps, "batch_size": self.recipe.batch.size},
            "splits": {scores.split: scores.sizes() for _, scores in models},
            "scores": [{"model": model, **row} for model, scores in models for row in scores.rows()],
            "skipped": [*data.skipped, *trained.skipped],
            "surgery": {what: len(names) for what, names in surgery.items()},
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
        }

    def _write(self, assembly: Assembly, results: Mapping[str, Any], surgery: Mapping[str, Sequence[str]]) -> None:
        if isinstance(self.recipe.start, SavedStart):
            write_atomically(self.folder / "surgery.json", json.dumps(surgery, indent=1) + "\n")
        text = json.dumps(results, indent=1) + "\n"
        write_atomically(self.folder / "scores.json", text)
        save(assembly, self.folder / "model", extra={"scores.json": text.encode()})
        set_state(self.folder, "done")


def _identity(data: DataSet, steps: int) -> str:
    """Return a digest of what decides which samples come when: the training samples in order, and the updates."""
    return hashlib.sha256(f"{steps} {samples_digest(data.train)}".encode()).hexdigest()
