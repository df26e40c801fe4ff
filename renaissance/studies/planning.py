"""What a study would take, before it runs: seeds, FLOPs, time and memory of each arm's stages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from renaissance.cost import cost
from renaissance.errors import HubError, MissingPackageError, SpecError, StudyError
from renaissance.recipe import Recipe, validate_recipe
from renaissance.recipe.start import SavedStart
from renaissance.registry import Registry
from renaissance.shorthand import parse_part
from renaissance.spec import OneTowerSpec, PartRule, TwoTowerSpec
from renaissance.studies.arms import Arm, Design, started_from
from renaissance.studies.design import Study
from renaissance.studies.hypotheses import seeds_planned

# texts are longer or shorter; what a run really takes stands in its ledger
TEXT_TOKENS = 16
COUNTED_BATCH = 4
# of what a product of large matrices reaches: training is slower by its small ones and by all that is no product
UTILISATION = 0.35


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the runs of an arm's stage take, each.

    flops, seconds: of the training, as if nothing were stored; None: not known before, for `reason`. memory: bytes in
    fp32 of weights, gradients, moments and activations. parameters: without those of `embeddings`.
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
        StudyError: its verdict would be confirmatory, and the seeds do not suffice for the margin that is stated.
        SpecError: a model of an arm cannot be built.
    """
    needed = check_seeds(design)
    speed = measured_rate() if rate is None else rate
    forecasts = tuple(_forecast(design, arm, stage, speed, registry) for arm in design.arms for stage in arm.recipes)
    return Plan(design, forecasts, needed, speed)


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
        raise StudyError(
            f"{study.name}: '{design.preset}' asks for a confirmatory verdict, and '{primary.name}' does not "
            "say what it expects; give 'expected: {sd: ..., gain: ...}' from a pilot, or set verdicts: exploratory."
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
    tasks = {name: task.options for name, task in recipe.tasks.items()}
    try:
        found = cost(
            model_of(design.study, arm, stage), tasks, batch=COUNTED_BATCH, text_tokens=TEXT_TOKENS, registry=registry
        )
    except (HubError, MissingPackageError) as error:
        return _because(unknown, str(error))
    except SpecError as error:
        if not any(options.get("labels", "") is None for options in tasks.values()):
            raise StudyError(f"{design.study.name}, arm '{arm.name}', stage '{stage}': {error}") from None
        return _because(unknown, "the labels of a task are those of the data")
    flops = None if updates is None else found.flops.training / COUNTED_BATCH * recipe.batch.size * updates
    memory = found.memory
    each = memory.activations // COUNTED_BATCH * (recipe.batch.size // recipe.batch.accumulation)
    return Forecast(
        arm.name,
        stage,
        runs,
        updates,
        flops,
        None if flops is None else flops / rate,
        memory.weights + memory.gradients + memory.optimiser + each,
        found.parameters.total,
        found.parameters.trainable,
    )


def _because(forecast: Forecast, reason: str) -> Forecast:
    return Forecast(**{**asdict(forecast), "reason": reason})


def updates_of(recipe: Recipe) -> int | None:
    """Return the updates of a training, where the recipe alone tells."""
    budget = recipe.budget
    if budget.samples is not None:
        return budget.samples // recipe.batch.size
    if budget.epochs is not None:
        train = getattr(recipe.data, "train", None)
        return budget.epochs * (train // recipe.batch.size) if isinstance(train, int) else None
    return budget.steps


def model_of(study: Study, arm: Arm, stage: str) -> TwoTowerSpec | OneTowerSpec:
    """Return the model that an arm trains in a stage: its own, or that of the stage from which it starts.

    Raises:
        StudyError: it starts from a saved model, whose spec only its folder tells.
    """
    recipe = validate_recipe(dict(arm.recipes[stage]))
    if not isinstance(recipe.start, SavedStart):
        return recipe.start
    earlier = started_from(arm.recipes[stage])
    if earlier is None:
        raise StudyError(
            f"{study.name}, arm '{arm.name}': '{stage}' starts from '{recipe.start.model}', and a study's own "
            "stages start from a spec or from '@stage', so that it can be run anywhere."
        )
    spec = model_of(study, arm, earlier)
    surgery = recipe.start.surgery
    rules = [*_rules("trainable", surgery.thaw), *_rules("frozen", surgery.freeze)]
    return spec.model_copy(update={"rules": (*spec.rules, *rules)})


def _rules(action: Any, parts: tuple[str, ...]) -> Iterator[PartRule]:
    return (PartRule(action=action, part=parse_part(part)) for part in parts)
