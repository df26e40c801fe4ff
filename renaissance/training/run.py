"""`renaissance.run`: from a recipe to a run folder with a trained, measured and saved model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from renaissance.assemble import Assembly
from renaissance.container import save
from renaissance.data.blind import Blindfold, blinded
from renaissance.data.collate import Collator
from renaissance.data.collate_items import ItemCollator, collator_of
from renaissance.data.load import samples_digest
from renaissance.data.loader import loader
from renaissance.data.records import DataSet
from renaissance.data.sampling import BatchPlan
from renaissance.durable import write_atomically
from renaissance.errors import SpecError
from renaissance.evaluation.beside import check_beside, measure_beside
from renaissance.evaluation.choosing import Measure
from renaissance.evaluation.leaks import Shared, check_run
from renaissance.evaluation.splits import SplitScores, evaluate_items, evaluate_split, with_twin
from renaissance.features.frozen import Stores
from renaissance.progress import Progress, Silent
from renaissance.recipe import Recipe, as_recipe
from renaissance.recipe.start import SavedStart
from renaissance.registry import Registry, default_registry
from renaissance.training.best import check_best
from renaissance.training.bridge import check_bridge, measure_bridge
from renaissance.training.checkpoint import remove_partial
from renaissance.training.clock import Clock
from renaissance.training.folder import choose_folder, set_state
from renaissance.training.forecast import forecast_facts
from renaissance.training.ledger import Ledger
from renaissance.training.ledger_file import NAME as LEDGER
from renaissance.training.ledger_file import ledger_facts, write_ledger
from renaissance.training.loop import Batches, Evaluate, Trained, train
from renaissance.training.opening import Opened, find_checkpoint, opened
from renaissance.training.optimiser import check_anything_trains
from renaissance.training.pace import Pace
from renaissance.training.processes import Processes
from renaissance.training.results import results_of
from renaissance.training.samples import select_samples
from renaissance.training.signals import Signals, listening
from renaissance.training.stages import LONG, Stage, check_learning_rates, check_parts, stages_of
from renaissance.training.start import check_primary, check_primary_metric, measured_tasks, start
from renaissance.training.stores import check_store, open_stores, parts_of
from renaissance.training.train_step import check_trains_together
from renaissance.uses import TaskSelection, reads_items, select_tasks


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
        StoppedError: Ctrl-C or SIGTERM stopped the training; its checkpoint is written.
    """
    chosen = as_recipe(recipe, data=data, seed=seed)
    known = registry or default_registry()
    place = choose_folder(chosen, Path(out) if out is not None else None, resume=resume)
    tasks = select_tasks(chosen, known)
    with listening() as signals:
        return _Job(chosen, tasks.named(chosen), tasks, place, resume, known, progress or Silent(), signals).run()


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
    signals: Signals
    clock: Clock = field(default_factory=Clock)
    shared: list[Shared] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    forecast: Mapping[str, Any] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=lambda: Ledger(torch.device("cpu")))

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
        processes = Processes(self.recipe, self.folder)
        plan = self._batch_plan(len(data.train), processes)
        steps = self._steps(plan)
        self.stages = stages_of(assembly, self.recipe.freezing, steps=steps, epoch=plan.steps_per_epoch)
        self._check(assembly, data)
        with self.clock("forecast"):
            parts = parts_of(self.recipe, assembly, self.stages) if self.recipe.store else {}
            self.forecast = forecast_facts(self.recipe, assembly, data, parts, steps)
        self.ledger = Ledger(processes.accelerator.device, spares=self.recipe.distributed.strategy != "fsdp")
        with opened(self.written, self.folder, processes.accelerator, self.progress, resume=self.resume) as place:
            self._init_trackers(processes)
            return self._work(assembly, surgery, data, plan, steps, processes, place)

    def _work(
        self,
        assembly: Assembly,
        surgery: Mapping[str, Sequence[str]],
        data: DataSet,
        plan: BatchPlan,
        steps: int,
        processes: Processes,
        place: Opened,
    ) -> Run:
        """Train, measure and save."""
        for line in (*data.facts, *data.skipped):
            self.progress.say(line)
        assembly.to(processes.accelerator.device)
        with self.clock("store"), self.ledger.building():
            stores = open_stores(
                self.recipe, assembly, data, self.stages, self.progress, processes.accelerator.main_process_first
            )
        found: dict[str, list[SplitScores]] = {}
        if self.recipe.evaluation.untrained:
            found["untrained"] = self._untrained(
                assembly, data, stores, processes, started=place.checkpoint is not None
            )
            check_primary_metric(self.recipe, found["untrained"])
        with self.clock("training"):
            trained = self._train(assembly, data, plan, steps, stores, processes, place)
        shuffled = self.recipe.evaluation.shuffled
        found["trained"] = self._measure(assembly, stores, processes, data.splits, blind=shuffled)
        if self.recipe.evaluation.blind is not None:
            found["blind"] = self._blind(data, plan, steps, stores, place)
            found["trained"] = with_twin(found["trained"], found["blind"])
        found["trained"] += self._beside(assembly, processes)
        if self.recipe.evaluation.bridge is not None:
            with self._phase("bridge"):
                found["bridge"] = measure_bridge(self.recipe, data, stores, self.progress)
        taken = self._taken(processes)
        results = results_of(
            self.recipe, found, trained, data, surgery=surgery, shared=self.shared, seconds=self.clock.seconds,
            compute=taken["compared"],
        )  # fmt: skip
        with processes.whole(assembly) as model:
            if processes.accelerator.is_main_process:
                write_ledger(self.folder, taken)
                self._write(model, results, surgery)
        processes.accelerator.wait_for_everyone()
        for tracker in processes.accelerator.trackers:  # `end_training` would take the process group from the next run
            tracker.finish()
        check_primary_metric(self.recipe, found["trained"])
        return Run(self.folder, self.written, results)

    # --- before anything is written -----------------------------------------------------------------------------

    def _check(self, assembly: Assembly, data: DataSet) -> None:
        """Refuse what would fail only after the training.

        Raises:
            SpecError: naming what cannot be.
            DataError: a sample has nothing that could take its place in a blind score.
        """
        check_anything_trains(assembly)
        check_learning_rates(assembly, self.recipe.optimiser, self.stages)
        check_trains_together(assembly, self.tasks.trained, self.stages)
        if self.recipe.batch.parts > 1:
            check_parts(assembly, self.stages)
        check_primary(self.recipe, assembly.plan, data.splits)
        check_bridge(assembly, self.recipe)
        check_best(self.recipe, measured_tasks(assembly.plan))
        self._check_blind(data)
        self.shared = check_run(self.recipe, data) + check_beside(self.recipe, assembly, data, self.registry)
        check_store(self.recipe, assembly, data, self.stages)
        if self.recipe.evaluation.every and not measured_tasks(assembly.plan):
            raise SpecError("None of the tasks has a score, so evaluation.every measures nothing; leave it out.")

    def _check_blind(self, data: DataSet) -> None:
        blind = self.recipe.evaluation.blind
        if blind is None:
            return
        blindfold = Blindfold(blind, data.held, self.recipe.seed)
        for sample in data.held:  # an epoch draws in another order, from the same others
            blindfold(sample)
        for samples in data.splits.values():
            blinded(samples, blind, self.recipe.seed)

    def _batch_plan(self, count: int, processes: Processes) -> BatchPlan:
        return BatchPlan(
            count=count,
            batch_size=self.recipe.batch.size,
            world_size=processes.accelerator.num_processes,
            rank=processes.accelerator.process_index,
            seed=self.recipe.seed,
            accumulation=self.recipe.batch.batches,
        )

    def _steps(self, plan: BatchPlan) -> int:
        """Return the updates of the training; LONG where FLOPs or seconds decide."""
        budget, schedule = self.recipe.budget, self.recipe.schedule
        if not budget.counted:
            return LONG
        of_samples = (budget.samples or 0) // self.recipe.batch.size
        steps = budget.steps or of_samples or (budget.epochs or 1) * plan.steps_per_epoch
        if schedule.warmup(steps) >= steps:
            warmup = schedule.warmup(steps)
            raise SpecError(f"The warm-up of {warmup} steps is not shorter than the training of {steps}; shorten it.")
        return steps

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        """Count what is done inside for a phase, in scores.json and in the ledger."""
        with self.clock(name), self.ledger.phases(name):
            yield

    def _length(self, steps: int) -> int | str:
        """Return how long the training is: its updates, or the budget that decides how many those are."""
        budget = self.recipe.budget
        return steps if budget.counted else budget.model_dump_json(exclude_none=True)

    def _pace(self, steps: int) -> Pace:
        return Pace(self.recipe.budget, self.recipe.schedule, steps)

    def _init_trackers(self, processes: Processes) -> None:
        if self.recipe.trackers:
            processes.accelerator.init_trackers(
                "renaissance", config={"name": self.recipe.name, "seed": self.recipe.seed}
            )

    # --- the work -----------------------------------------------------------------------------------------------

    def _train(
        self,
        assembly: Assembly,
        data: DataSet,
        plan: BatchPlan,
        steps: int,
        stores: Stores,
        processes: Processes,
        place: Opened,
    ) -> Trained:
        return train(
            assembly,
            self.recipe,
            self._batches(data, plan, self._collator(assembly, stores)),
            pace=self._pace(steps),
            ledger=self.ledger,
            samples=data.distinct,
            folder=self.folder,
            run=place.run,
            processes=processes,
            progress=self.progress,
            identity=_identity(data, self._length(steps)),
            signals=self.signals,
            stages=self.stages,
            start=place.checkpoint,
            evaluate=self._validate(assembly, data, stores, processes),
        )

    def _blind(self, data: DataSet, plan: BatchPlan, steps: int, stores: Stores, place: Opened) -> list[SplitScores]:
        """Train a twin from the same start to which one modality tells nothing, and measure it in the same way."""
        blind, folder = self.recipe.evaluation.blind, self.folder / "blind"
        assert blind is not None, "`run` asks"
        processes = Processes(self.recipe, self.folder)  # without trackers: those of the run are not for the twin
        twin = start(self.recipe, self.tasks, self.registry, data.train)[0].to(processes.accelerator.device)
        run = f"{place.run}/blind"
        if processes.accelerator.is_main_process:
            folder.mkdir(exist_ok=True)
            remove_partial(folder / "checkpoints")
        processes.accelerator.wait_for_everyone()
        checkpoint = find_checkpoint(folder, run, processes.accelerator, self.progress) if self.resume else None
        collator = self._collator(twin, stores)
        batches = self._batches(data, plan, replace(collator, blindfold=Blindfold(blind, data.held, self.recipe.seed)))
        with self._phase("blind"):
            train(
                twin,
                self.recipe,
                batches,
                pace=self._pace(steps),
                ledger=Ledger(processes.accelerator.device, spares=False),
                samples=data.distinct,
                folder=folder,
                run=run,
                processes=processes,
                progress=self.progress,
                identity=_identity(data, self._length(steps)),
                signals=self.signals,
                stages=self.stages,
                start=checkpoint,
            )
        splits = {name: blinded(items, blind, self.recipe.seed) for name, items in data.splits.items()}
        return self._measure(twin, stores, processes, splits)

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
            "stored_vision": stores.vision.views if stores.vision else None,
            "stored_text": stores.text.texts if stores.text else None,
        }
        images, texts = None if stores.vision else encoder.vision.processor, encoder.text.processor
        if self.items:
            trained: dict[str, Any] = {name: assembly.tasks[name] for name in self.tasks.trained}
            return collator_of(trained, images, texts, **how)
        return Collator(images, texts, **how)

    def _measure(
        self,
        assembly: Assembly,
        stores: Stores,
        processes: Processes,
        splits: Mapping[str, Sequence[Any]],
        *,
        blind: bool = False,
    ) -> list[SplitScores]:
        """Measure on the main process, while the others wait; blind: on images and texts of other samples too."""
        able = assembly.plan.tasks
        found: list[SplitScores] = []
        with self._phase("evaluation"), processes.whole(assembly) as model:
            tasks = {name: Measure(able[name].entry, model.tasks[name]) for name in measured_tasks(assembly.plan)}
            if processes.accelerator.is_main_process and tasks and self.items:
                judge = partial(
                    evaluate_items, model, measures=tasks, stores=stores, progress=self.progress, blind=blind
                )
                found = [judge(name, items) for name, items in splits.items()]
            elif processes.accelerator.is_main_process and tasks:
                measure = partial(evaluate_split, model, stores=stores, progress=self.progress, blind=blind)
                size = self.recipe.evaluation.batch_size
                found = [measure(name, records, tasks, batch_size=size) for name, records in splits.items()]
            processes.accelerator.wait_for_everyone()
        return found

    def _beside(self, assembly: Assembly, processes: Processes) -> list[SplitScores]:
        """Measure the trained model on the recipe's further data, on the main process, while the others wait."""
        found: list[SplitScores] = []
        with self._phase("evaluation"), processes.whole(assembly) as model:
            if processes.accelerator.is_main_process:
                found = measure_beside(self.recipe, model, self.registry, self.progress)
            processes.accelerator.wait_for_everyone()
        return found

    def _untrained(
        self, assembly: Assembly, data: DataSet, stores: Stores, processes: Processes, *, started: bool
    ) -> list[SplitScores]:
        """Measure the model before training; for a run that goes on it is built once more, from the same seed."""
        if started:
            assembly = start(self.recipe, self.tasks, self.registry, data.train)[0].to(processes.accelerator.device)
        return self._measure(assembly, stores, processes, data.splits)

    def _validate(self, assembly: Assembly, data: DataSet, stores: Stores, processes: Processes) -> Evaluate | None:
        """Return what measures the samples set aside: figures, on the main process."""
        if not self.recipe.evaluation.every:
            return None

        def validate(step: int) -> dict[str, float]:
            measured = self._measure(assembly, stores, processes, {"validation": data.validation})
            rows = [row for scores in measured for row in scores.rows()]
            return {f"validation/{row['task']}/{row['name']}": row["value"] for row in rows}

        return validate

    # --- the results --------------------------------------------------------------------------------------------

    def _taken(self, processes: Processes) -> dict[str, Any]:
        """Return what ledger.json holds; all processes call this."""
        return ledger_facts(
            self.ledger.totals(processes.accelerator),
            self.forecast,
            name=self.recipe.name,
            batch=self.recipe.batch.size,
            processes=processes.accelerator.num_processes,
            spares=self.ledger.spares,
        )

    def _write(self, assembly: Assembly, results: Mapping[str, Any], surgery: Mapping[str, Sequence[str]]) -> None:
        if isinstance(self.recipe.start, SavedStart):
            write_atomically(self.folder / "surgery.json", json.dumps(surgery, indent=1) + "\n")
        text = json.dumps(results, indent=1) + "\n"
        write_atomically(self.folder / "scores.json", text)
        extra = {"scores.json": text.encode(), LEDGER: (self.folder / LEDGER).read_bytes()}
        save(assembly, self.folder / "model", extra=extra)
        set_state(self.folder, "done")


def _identity(data: DataSet, length: int | str) -> str:
    """Return a digest of what decides which samples come when: the training samples in order, and the updates."""
    return hashlib.sha256(f"{length} {samples_digest(data.train)}".encode()).hexdigest()
