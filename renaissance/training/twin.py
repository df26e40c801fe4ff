"""The blind twin of a model: trained from the same start in the same way, but one modality tells it nothing."""

from __future__ import annotations

from pathlib import Path

from renaissance.assemble import Assembly
from renaissance.data.blind import Blindfold, blinded
from renaissance.evaluation.splits import SplitScores
from renaissance.training.checkpoint import remove_partial
from renaissance.training.course import Course
from renaissance.training.ledger import Ledger
from renaissance.training.measuring import Measurer
from renaissance.training.opening import find_checkpoint


def measure_twin(
    course: Course, measurer: Measurer, twin: Assembly, *, folder: Path, run: str, resume: bool
) -> list[SplitScores]:
    """Train a model to which one modality tells nothing, and measure it in the same way.

    twin: the model as it was before the training. measurer: with processes of its own, for those of the run have
    wrapped its model. folder: for the twin's checkpoints; run: what they are of.
    """
    recipe, processes = course.recipe, measurer.processes
    blind = recipe.evaluation.blind
    assert blind is not None, "`run` asks"
    if processes.first:
        folder.mkdir(exist_ok=True)
        remove_partial(folder / "checkpoints")
    processes.wait()
    with measurer.phase("blind"):
        course.train(
            twin,
            folder=folder,
            run=run,
            processes=processes,
            ledger=Ledger(processes.accelerator.device, spares=False),
            start=find_checkpoint(folder, run, processes.accelerator, course.progress) if resume else None,
            blindfold=Blindfold(blind, course.data.held, recipe.seed),
        )
    splits = {name: blinded(items, blind, recipe.seed) for name, items in course.data.splits.items()}
    return measurer.measure(twin, splits)
