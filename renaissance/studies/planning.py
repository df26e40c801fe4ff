"""What a study would take, before it runs: seeds, FLOPs, time and memory of each arm's stages."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from renaissance.cost import Cost, cost
from renaissance.errors import HubError, MissingPackageError, SpecError, StudyError
from renaissance.recipe import Recipe, validate_recipe
from renaissance.registry import Registry
from renaissance.studies.arms import Arm, Design
from renaissance.studies.effects import check_effects, model_of, updates_of
from renaissance.studies.facts import COUNTED_BATCH, TEXT_TOKENS
from renaissance.studies.hypotheses import seeds_planned
from renaissance.studies.linting import check_design
from renaissance.studies.matching import check_matched
from renaissance.studies.measured import check_metrics

# of what a product of large matrices reaches: training is slower by its small ones and by all that is no product
UTILISATION = 0.35


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the runs of an arm's stage take, each.

    flops, seconds: of the training, as if nothing were stored; None: not known before, for `reason`. memory: bytes in
    fp32 of weights, gradients, moments and activations. parameters: all of them, each shared one once.
    """

    arm: str
    stage: str
    runs: int
    updates: int | None
    flops: float | None
    seconds: float | None
    memory: int | None
    parameters: int | None
    trainable: int | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A study's plan. needed: the seeds that the primary hypothesis takes at what is expected; None: nothing is."""

    design: Design
    forecasts: tuple[Forecast, ...]
    needed: int | None
    rate: float

    @property
    def runs(self) -> int:
        """Runs in all; arms share those that are the same."""
        return len(self.design.runs)

    @property
    def seconds(self) -> float | None:
        """Of all runs one after the other; None where one of them is not known."""
        return self._sum("seconds")

    @property
    def flops(self) -> float | None:
        """Of all runs."""
        return self._sum("flops")

    def facts(self) -> dict[str, Any]:
        """Return the plan as JSON has it."""
        return {
            "study": self.design.study.name,
            "preset": self.design.preset,
            "verdicts": self.design.size.verdicts,
            "seeds": dict(self.design.study.seeds),
            "seeds_needed": self.needed,
            "runs": self.runs,
            "flops": self.flops,
            "seconds": self.seconds,
            "arms": [asdict(forecast) for forecast in self.forecasts],
        }

    def _sum(self, what: str) -> float | None:
        """Add up a figure over the distinct runs."""
        known = {(one.arm, one.stage): getattr(one, what) for one in self.forecasts}
        total = 0.0
        for run in self.design.runs.values():
            found = known[self.design.arms_of(run.id)[0], run.stage]
            if found is None:
                return None
            total += found
        return total


def plan(design: Design, *, registry: Registry | None = None, rate: float | None = None) -> Plan:
    """Return what a design takes. rate: FLOP/s of training; default: measured here in a moment.

    Raises:
        StudyError: the study cannot be run as it is, see `check_ready`.
    """
    check_ready(design, registry=registry)
    needed = check_seeds(design)
    speed = measured_rate() if rate is None else rate
    forecasts = tuple(_forecast(design, arm, stage, speed, registry) for arm in design.arms for stage in arm.recipes)
    return Plan(design, forecasts, needed, speed)


def check_ready(design: Design, *, registry: Registry | None = None) -> None:
    """Check all that must hold before the first run of a study.

    Raises:
        StudyError: arms are unequal, in their recipes or in what these imply; a score is read that no task gives; a
            model cannot be built; arms that are matched are not of like size; the seeds do not suffice; or a budget of
            FLOPs does not hold one update.
    """
    check_design(design)
    check_metrics(design, registry=registry)
    check_effects(design, registry=registry)
    check_seeds(design)
    check_matched(design)
    for arm in design.arms:
        for stage, recipe in arm.recipes.items():
            if recipe["budget"]["flops"] is not None:
                _forecast(design, arm, stage, 1.0, registry)


def check_seeds(design: Design) -> int | None:
    """Return the seeds that the primary hypothesis takes; None: nothing says how far seeds scatter.

    Raises:
        StudyError: the preset asks for a confirmatory verdict with fewer, or without saying what is expected.
    """
    study = design.study
    primary = next(one for one in study.hypotheses if one.name == study.primary)
    needed = seeds_planned(primary)
    if design.size.verdicts != "confirmatory":
        return needed
    have = next(iter(study.seeds.values()))
    if needed is None:
        fault = "does not say what it expects" if primary.expected is None else "expects what no number of seeds shows"
        raise StudyError(
            f"{study.name}: '{design.preset}' asks for a confirmatory verdict, and '{primary.name}' {fault}; give "
            "'expected: {sd: ..., gain: ...}' from a pilot, or set verdicts: exploratory."
        )
    if have < needed:
        raise StudyError(
            f"{study.name}: too few seeds: '{primary.name}' takes {needed} pretraining seeds for 80% power at what it "
            f"expects, and the preset '{design.preset}' has {have}; add seeds, or set verdicts: exploratory."
        )
    return needed


def measured_rate() -> float:
    """Return FLOP/s that a training may reach here: a share of what a product of matrices does."""
    side, best = 768, float("inf")
    left, right = torch.rand(side, side), torch.rand(side, side)
    for _ in range(5):
        begun = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - begun)
    return UTILISATION * 2 * side**3 / best


# --- one arm's stage --------------------------------------------------------------------------------------------------


def _forecast(design: Design, arm: Arm, stage: str, rate: float, registry: Registry | None) -> Forecast:
    recipe = validate_recipe(dict(arm.recipes[stage]))
    runs = sum(len(row) for row in design.runs_of[arm.name, stage])
    updates = updates_of(recipe)
    unknown = Forecast(arm.name, stage, runs, updates, None, None, None, None, None)
    found = _cost(design, arm, stage, recipe, registry)
    if isinstance(found, str):
        return replace(unknown, reason=found)
    an_update = found.flops.training / COUNTED_BATCH * recipe.batch.size
    if recipe.budget.flops is not None:
        updates = _held(
            recipe.budget.flops, an_update, f"{design.study.name}, arm '{arm.name}', stage '{stage}'", recipe
        )
    flops = recipe.budget.flops or (None if updates is None else an_update * updates)
    memory = found.memory
    each = memory.activations // COUNTED_BATCH * (recipe.batch.size // recipe.batch.accumulation)
    return Forecast(
        arm.name,
        stage,
        runs,
        updates,
        flops,
        recipe.budget.seconds or (None if flops is None else flops / rate),
        memory.weights + memory.gradients + memory.optimiser + each,
        found.parameters.total,
        found.parameters.trainable,
    )


def _cost(design: Design, arm: Arm, stage: str, recipe: Recipe, registry: Registry | None) -> Cost | str:
    """Return what a step of a stage costs, or why that is not known."""
    model = model_of(design.study, arm, stage)
    if model is None:
        return f"'{arm.recipes[stage]['start']['model']}' is a saved model"
    tasks = {name: task.options for name, task in recipe.tasks.items()}
    try:
        return cost(model.spec, tasks, batch=COUNTED_BATCH, text_tokens=TEXT_TOKENS, registry=registry)
    except (HubError, MissingPackageError) as error:
        return str(error)
    except SpecError as error:
        if not any(options.get("labels", "") is None for options in tasks.values()):
            raise StudyError(f"{design.study.name}, arm '{arm.name}', stage '{stage}': {error}") from None
        return "the labels of a task are those of the data"


def _held(budget: float, an_update: float, where: str, recipe: Recipe) -> int | None:
    """Return how many updates a budget of FLOPs holds, at least; a store spares what is not known before.

    Raises:
        StudyError: not one.
    """
    if recipe.store is not None:
        return None
    if budget < an_update:
        raise StudyError(
            f"{where}: budget.flops is {budget:.4g}, and one update of {recipe.batch.size} takes about "
            f"{an_update:.4g}; give more, or a smaller batch.size."
        )
    return int(budget // an_update)
