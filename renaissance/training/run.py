"""`renaissance.run`: from a recipe to a run folder with a trained, measured and saved model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from renaissance.assemble import Assembly
from renaissance.container import save
from renaissance.data.corpora import corpora_of
from renaissance.data.records import DataSet
from renaissance.durable import write_atomically
from renaissance.evaluation.leaks import Shared
from renaissance.evaluation.outcomes import write_outcomes
from renaissance.evaluation.splits import SplitScores, with_twin
from renaissance.features.frozen import Stores
from renaissance.progress import Progress, Silent
from renaissance.recipe import Recipe, as_recipe
from renaissance.recipe.start import SavedStart
from renaissance.registry import Registry, default_registry
from renaissance.training.bridge import measure_bridge
from renaissance.training.checks import check_job
from renaissance.training.clock import Clock
from renaissance.training.course import Course, batch_plan, steps_of
from renaissance.training.folder import RECIPE, choose_folder, recipe_text, set_state
from renaissance.training.forecast import forecast_facts
from renaissance.training.ledger import Ledger
from renaissance.training.ledger_file import NAME as LEDGER
from renaissance.training.ledger_file import ledger_facts, write_ledger
from renaissance.training.measuring import Measurer
from renaissance.training.opening import Opened, opened
from renaissance.training.others import telling_of_others
from renaissance.training.processes import Processes
from renaissance.training.results import results_of
from renaissance.training.samples import select_samples
from renaissance.training.signals import Signals, listening
from renaissance.training.stages import stages_of
from renaissance.training.start import check_primary_metric, start
from renaissance.training.stores import open_stores, parts_of
from renaissance.training.twin import measure_twin
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
        ProcessGroupError: another process of the run ended or stopped answering; the last checkpoint is kept.
    """
    chosen = as_recipe(recipe, data=data, seed=seed)
    known = registry or default_registry()
    place = choose_folder(chosen, Path(out) if out is not None else None, resume=resume)
    tasks = select_tasks(chosen, known)
    with listening() as signals, telling_of_others():
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
    corpora: list[dict[str, Any]] = field(default_factory=list)
    forecast: Mapping[str, Any] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=lambda: Ledger(torch.device("cpu")))

    def run(self) -> Run:
        """Check everything that can be checked, then make the folder, train, measure and save."""
        items = reads_items(self.tasks, self.registry)
        with self.clock("data"):
            data = select_samples(self.recipe, items=items)
            self.corpora = corpora_of(self.recipe.data)  # their folders may be gone when the training is over
        with self.clock("build"):
            assembly, surgery = start(self.recipe, self.tasks, self.registry, data.train)
        processes = Processes(self.recipe, self.folder)
        plan = batch_plan(self.recipe, len(data.train), processes)
        steps = steps_of(self.recipe, plan)
        stages = stages_of(assembly, self.recipe.freezing, steps=steps, epoch=plan.steps_per_epoch)
        self.shared = check_job(self.recipe, self.tasks, self.registry, assembly, data, stages)
        with self.clock("forecast"):
            parts = parts_of(self.recipe, assembly, stages) if self.recipe.store else {}
            self.forecast = forecast_facts(self.recipe, assembly, data, parts, steps, padded=plan.share)
        self.ledger = Ledger(processes.accelerator.device, spares=self.recipe.distributed.strategy != "fsdp")
        with opened(self.written, self.folder, processes.accelerator, self.progress, resume=self.resume) as place:
            self._init_trackers(processes)
            for line in (*data.facts, *data.skipped):
                self.progress.say(line)
            assembly.to(processes.accelerator.device)
            with self._phase("store"):
                stores = open_stores(self.recipe, assembly, data, stages, self.progress, processes.first_one_first)
            course = Course(
                recipe=self.recipe,
                tasks=self.tasks.trained,
                items=items,
                data=data,
                plan=plan,
                steps=steps,
                stages=stages,
                stores=stores,
                signals=self.signals,
                progress=self.progress,
            )
            return self._work(assembly, surgery, course, processes, place)

    def _work(
        self,
        assembly: Assembly,
        surgery: Mapping[str, Sequence[str]],
        course: Course,
        processes: Processes,
        place: Opened,
    ) -> Run:
        """Train, measure and save."""
        data, asked = course.data, self.recipe.evaluation
        measurer = Measurer(
            self.recipe, course.items, course.stores, processes, self.signals, self.progress, self._phase
        )
        found: dict[str, list[SplitScores]] = {}
        if asked.untrained:
            begun = place.checkpoint is not None
            found["untrained"] = measurer.measure(self._anew(data, processes) if begun else assembly, data.splits)
            check_primary_metric(self.recipe, found["untrained"])
        with self.clock("training"):
            trained = course.train(
                assembly,
                folder=self.folder,
                run=place.run,
                processes=processes,
                ledger=self.ledger,
                start=place.checkpoint,
                evaluate=measurer.validation(assembly, data),
            )
        found["trained"] = measurer.measure(assembly, data.splits, blind=asked.shuffled)
        if asked.blind is not None:
            found["blind"] = self._twin(course, measurer, place)
            found["trained"] = with_twin(found["trained"], found["blind"])
        found["trained"] += measurer.beside(assembly, self.registry)
        if asked.bridge is not None:
            with self._phase("bridge"):
                found["bridge"] = measure_bridge(self.recipe, data, course.stores, self.progress)
        taken = self._taken(processes, course.stores)
        results = results_of(
            self.recipe, found, trained, data, surgery=surgery, shared=self.shared, corpora=self.corpora,
            seconds=self.clock.seconds, compute=taken["compared"],
        )  # fmt: skip
        with processes.whole(assembly) as model:
            if processes.first:
                write_ledger(self.folder, taken)
                if asked.outcomes:
                    write_outcomes(self.folder, found)
                self._write(model, results, surgery)
        processes.wait()
        for tracker in processes.accelerator.trackers:  # `end_training` would take the process group from the next run
            tracker.finish()
        check_primary_metric(self.recipe, found["trained"])
        return Run(self.folder, self.written, results)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        """Count what is done inside for a phase, in scores.json and in the ledger."""
        with self.clock(name), self.ledger.phases(name):
            yield

    def _init_trackers(self, processes: Processes) -> None:
        if self.recipe.trackers:
            processes.accelerator.init_trackers(
                "renaissance", config={"name": self.recipe.name, "seed": self.recipe.seed}
            )

    def _anew(self, data: DataSet, processes: Processes) -> Assembly:
        """Return the model once more as it was before the training, from the same seed."""
        return start(self.recipe, self.tasks, self.registry, data.train)[0].to(processes.accelerator.device)

    def _twin(self, course: Course, measurer: Measurer, place: Opened) -> list[SplitScores]:
        own = Processes(self.recipe, self.folder)  # without trackers: those of the run are not for the twin
        return measure_twin(
            course,
            replace(measurer, processes=own),
            self._anew(course.data, own),
            folder=self.folder / "blind",
            run=f"{place.run}/blind",
            resume=self.resume,
        )

    # --- the results --------------------------------------------------------------------------------------------

    def _taken(self, processes: Processes, stores: Stores) -> dict[str, Any]:
        """Return what ledger.json holds; all processes call this."""
        return ledger_facts(
            self.ledger.totals(processes.accelerator),
            self.forecast,
            stores.cost(),
            name=self.recipe.name,
            batch=self.recipe.batch.size,
            processes=processes.accelerator.num_processes,
        )

    def _write(self, assembly: Assembly, results: Mapping[str, Any], surgery: Mapping[str, Sequence[str]]) -> None:
        if isinstance(self.recipe.start, SavedStart):
            write_atomically(self.folder / "surgery.json", json.dumps(surgery, indent=1) + "\n")
        text = json.dumps(results, indent=1) + "\n"
        write_atomically(self.folder / "scores.json", text)
        extra = {
            RECIPE: recipe_text(self.written).encode(),
            "scores.json": text.encode(),
            LEDGER: (self.folder / LEDGER).read_bytes(),
        }
        save(assembly, self.folder / "model", extra=extra)
        set_state(self.folder, "done")
