"""What is refused before a run writes anything, as it would fail only after the training."""

from __future__ import annotations

from collections.abc import Sequence

from renaissance.assemble import Assembly
from renaissance.data.blind import Blindfold, blinded
from renaissance.data.records import DataSet
from renaissance.errors import SpecError
from renaissance.evaluation.beside import check_beside
from renaissance.evaluation.leaks import Shared, check_run
from renaissance.recipe import Recipe
from renaissance.registry import Registry
from renaissance.training.best import check_best
from renaissance.training.bridge import check_bridge
from renaissance.training.optimiser import check_anything_trains
from renaissance.training.stages import Stage, check_learning_rates, check_parts
from renaissance.training.start import check_primary, measured_tasks
from renaissance.training.stores import check_store
from renaissance.training.train_step import check_trains_together
from renaissance.uses import TaskSelection


def check_job(
    recipe: Recipe,
    tasks: TaskSelection,
    registry: Registry,
    assembly: Assembly,
    data: DataSet,
    stages: Sequence[Stage],
) -> list[Shared]:
    """Refuse a run that cannot be; return which images that it is measured on it trains on too, where that is waived.

    Raises:
        SpecError: naming what cannot be.
        DataError: a sample has nothing that could take its place in a blind score; or images are shared.
    """
    check_anything_trains(assembly)
    check_learning_rates(assembly, recipe.optimiser, stages)
    check_trains_together(assembly, tasks.trained, stages)
    if recipe.batch.parts > 1:
        check_parts(assembly, stages)
    check_primary(recipe, assembly.plan, data.splits)
    check_bridge(assembly, recipe)
    check_best(recipe, measured_tasks(assembly.plan))
    _check_blind(recipe, data)
    shared = check_run(recipe, data) + check_beside(recipe, assembly, data, registry)
    check_store(recipe, assembly, data, stages)
    if recipe.evaluation.every and not measured_tasks(assembly.plan):
        raise SpecError("None of the tasks has a score, so evaluation.every measures nothing; leave it out.")
    return shared


def _check_blind(recipe: Recipe, data: DataSet) -> None:
    blind = recipe.evaluation.blind
    if blind is None:
        return
    blindfold = Blindfold(blind, data.held, recipe.seed)
    for sample in data.held:  # an epoch draws in another order, from the same others
        blindfold(sample)
    for samples in data.splits.values():
        blinded(samples, blind, recipe.seed)
